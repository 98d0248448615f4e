//! Speed of the matrix kernels on every instruction set of this machine, beside a plain read of the
//! same bytes.
//!
//! `cargo run --release [-- THREADS [decode]]`. Decode: GB/s of weights that come from memory.
//! Prefill: billions of int8 multiply-adds a second, weights and activations in cache as they would
//! be in a layer. Each figure is the best of several passes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use brooklet_core::arena::{Aligned, Columns, Shared};
use brooklet_core::kernels::{Input, Isa, Product, Q8Activation, matmul, quantize};
use brooklet_core::quant::Format;
use brooklet_core::tensor::Matrix;

/// Least total time of the passes of a figure.
const TIME: Duration = Duration::from_millis(300);
/// Passes of each instruction set over weights in memory.
const ROUNDS: usize = 40;

fn main() {
    let threads = std::env::args()
        .nth(1)
        .map_or(1, |n| n.parse().expect("a number of threads"));
    let only_decode = std::env::args().nth(2).is_some_and(|what| what == "decode");
    println!("decode, {threads} thread(s), GB/s of weights");
    for (format, rows, cols, copies) in [
        (Format::Q8_0, 49152, 576, 2),
        (Format::Q4_1, 1536, 576, 120),
        (Format::Q4_1, 576, 1536, 120),
        (Format::Q4_0, 1536, 576, 120),
        (Format::Q5_0, 1536, 576, 100),
        (Format::Q5_1, 1536, 576, 100),
        (Format::IQ4_NL, 1536, 576, 120),
        (Format::Q2_K, 1024, 768, 240),
        (Format::Q3_K, 1024, 768, 180),
        (Format::Q4_K, 1024, 768, 130),
        (Format::Q5_K, 1024, 768, 110),
        (Format::Q6_K, 1024, 768, 90),
    ] {
        decode(format, rows, cols, copies, threads);
    }
    if only_decode {
        return;
    }
    println!("prefill, one thread, GMAC/s");
    for (format, rows, cols) in [
        (Format::Q4_1, 1536, 576),
        (Format::Q4_1, 576, 1536),
        (Format::Q8_0, 1536, 576),
        (Format::Q4_0, 1536, 576),
        (Format::Q5_0, 1536, 576),
        (Format::Q5_1, 1536, 576),
        (Format::IQ4_NL, 1536, 576),
        (Format::Q2_K, 1024, 768),
        (Format::Q3_K, 1024, 768),
        (Format::Q4_K, 1024, 768),
        (Format::Q5_K, 1024, 768),
        (Format::Q6_K, 1024, 768),
    ] {
        prefill(format, rows, cols);
    }
    println!("quantize, one thread, Gvalue/s");
    let x = noise_floats(1536);
    for isa in isas() {
        let mut q = vec![NO_ACTIVATION; x.len() / 32];
        let time = best(|| quantize(isa, black_box(&x), black_box(&mut q)));
        println!("  {:8} {:6.2}", isa.name(), x.len() as f64 / time / 1e9);
    }
}

const NO_ACTIVATION: Q8Activation = Q8Activation {
    scale: 0.0,
    scaled_sum: 0.0,
    sum: 0,
    first_sum: 0,
    q: [0; 32],
};

fn decode(format: Format, rows: usize, cols: usize, copies: usize, threads: usize) {
    let size = format.row_bytes(cols).expect("whole blocks") * rows;
    let bytes = noise_bytes(size * copies);
    let x = quantized(&noise_floats(cols));
    let isas = isas();
    let mut out = vec![0.0; rows];
    // Instruction sets take turns in rounds, so that other load on the machine slows all of them
    // alike.
    let (mut read_time, mut times) = (f64::INFINITY, vec![f64::INFINITY; isas.len()]);
    for _ in 0..ROUNDS {
        let pass = timed(|| in_parallel(threads, |t| read(&bytes[part(bytes.len(), threads, t)])));
        read_time = read_time.min(pass);
        for (isa, time) in isas.iter().zip(&mut times) {
            let copies = if *isa == Isa::Scalar {
                copies.div_ceil(10)
            } else {
                copies
            };
            let pass = timed(|| {
                let shared = Shared::new(&mut out, rows, rows.div_ceil(threads));
                in_parallel(threads, |t| {
                    let mut scratch = Box::new(Aligned([0u8; 1 << 14]));
                    for copy in bytes.chunks_exact(size).take(copies) {
                        let w = Matrix::new(format, rows, cols, copy).expect("right size");
                        let mut out = shared.take(t);
                        let start = t * rows.div_ceil(threads);
                        let product = Product {
                            weights: &w,
                            rows: start..start + out.width(),
                            activations: Input::Q8(&x),
                            out: &mut out,
                            scratch: &mut scratch.0,
                        };
                        matmul(*isa, product);
                    }
                });
            });
            *time = time.min(pass * (bytes.len() / (size * copies)) as f64);
        }
    }
    let rate = |time: f64| bytes.len() as f64 / time / 1e9;
    print!(
        "  {:5} {rows:5}x{cols:<5} read {:6.2}",
        format.name(),
        rate(read_time)
    );
    for (isa, time) in isas.iter().zip(times) {
        print!(
            "  {} {:6.2} ({:3.0} %)",
            isa.name(),
            rate(time),
            100.0 * read_time / time
        );
    }
    println!();
}

fn prefill(format: Format, rows: usize, cols: usize) {
    let bytes = noise_bytes(format.row_bytes(cols).expect("whole blocks") * rows);
    let w = Matrix::new(format, rows, cols, &bytes).expect("right size");
    let mut scratch = Box::new(Aligned([0u8; 1 << 18]));
    for tokens in [2, 3, 4, 8, 16, 64, 256] {
        print!("  {:5} {rows:5}x{cols:<5} {tokens:3} tokens", format.name());
        let x = quantized(&noise_floats(cols * tokens));
        let mut out = vec![0.0; rows * tokens];
        for isa in isas() {
            let mut columns = Columns::all(&mut out, rows);
            let time = best(|| {
                let product = Product {
                    weights: &w,
                    rows: 0..rows,
                    activations: Input::Q8(&x),
                    out: &mut columns,
                    scratch: &mut scratch.0,
                };
                matmul(isa, product)
            });
            print!(
                "  {} {:6.1}",
                isa.name(),
                (rows * cols * tokens) as f64 / time / 1e9
            );
        }
        println!();
    }
}

fn isas() -> Vec<Isa> {
    brooklet_core::detected_isas!()
}

/// Seconds of the fastest of several passes, one at least.
fn best(mut pass: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while best.is_infinite() || start.elapsed() < TIME {
        best = best.min(timed(&mut pass));
    }
    best
}

fn timed(pass: impl FnOnce()) -> f64 {
    let start = Instant::now();
    pass();
    start.elapsed().as_secs_f64()
}

fn in_parallel(threads: usize, job: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let job = &job;
        for t in 1..threads {
            scope.spawn(move || job(t));
        }
        job(0);
    });
}

fn part(len: usize, parts: usize, part: usize) -> std::ops::Range<usize> {
    len / parts * part..if part + 1 == parts {
        len
    } else {
        len / parts * (part + 1)
    }
}

/// Reads every byte, in a way that the compiler cannot remove.
fn read(bytes: &[u8]) {
    let mut sums = [0u64; 16];
    for chunk in bytes.as_chunks::<128>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    black_box(sums);
}

fn noise_bytes(len: usize) -> Vec<u8> {
    // Every place of an f16 scale gets a small value: no infinities, no subnormal sums.
    let mut state = 1u64;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8 & 0x2f
        })
        .collect()
}

fn noise_floats(len: usize) -> Vec<f32> {
    noise_bytes(len)
        .into_iter()
        .map(|b| f32::from(b) - 20.0)
        .collect()
}

fn quantized(x: &[f32]) -> Vec<Q8Activation> {
    let mut q = vec![NO_ACTIVATION; x.len() / 32];
    quantize(Isa::Scalar, x, &mut q);
    q
}
