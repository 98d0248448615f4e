//! Every block format against a golden of the Python package `gguf` (see `golden/make_quant.py`),
//! bit by bit.

use std::sync::LazyLock;

use brooklet_core::quant::{F16, Format};
use brooklet_core::tensor::Matrix;

/// Rows of one format: bytes of whole blocks, and the values that the Python package reads from
/// them.
struct Golden {
    format: Format,
    block_len: usize,
    block_bytes: usize,
    rows: Vec<(Vec<u8>, Vec<f32>)>,
}

fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

static GOLDENS: LazyLock<Vec<Golden>> = LazyLock::new(|| {
    let mut goldens: Vec<Golden> = Vec::new();
    for line in include_str!("golden/quant.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["#", ..] => {}
            ["format", name, number, block_len, block_bytes] => {
                let format = Format::from_ggml_type(number.parse().unwrap()).unwrap();
                assert_eq!(format.name(), name);
                goldens.push(Golden {
                    format,
                    block_len: block_len.parse().unwrap(),
                    block_bytes: block_bytes.parse().unwrap(),
                    rows: Vec::new(),
                });
            }
            [bytes, values] => {
                let values = from_hex(values);
                let values = values
                    .chunks_exact(4)
                    .map(|v| f32::from_be_bytes(v.try_into().unwrap()));
                let row = (from_hex(bytes), values.collect());
                goldens.last_mut().unwrap().rows.push(row);
            }
            _ => panic!("not a golden line: {line}"),
        }
    }
    goldens
});

fn dequantize(format: Format, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    let matrix = Matrix::new(format, 1, len, bytes).unwrap();
    matrix.dequantize_row(0, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_golden_has_every_format_with_its_sizes() {
    for format in Format::ALL {
        let golden = GOLDENS.iter().find(|g| g.format == format);
        let golden = golden.unwrap_or_else(|| panic!("{} has no golden", format.name()));
        assert_eq!(golden.block_len, format.block_len(), "{}", format.name());
        assert_eq!(
            golden.block_bytes,
            format.block_bytes(),
            "{}",
            format.name()
        );
        assert!(golden.rows.len() >= 2);
    }
    assert_eq!(GOLDENS.len(), Format::ALL.len());
}

#[test]
fn every_format_reads_the_foreign_bits() {
    for golden in GOLDENS.iter() {
        for (i, (bytes, values)) in golden.rows.iter().enumerate() {
            let ours = dequantize(golden.format, bytes, values.len());
            assert_eq!(
                bits(&ours),
                bits(values),
                "{} row {i}",
                golden.format.name()
            );
        }
    }
}

/// A wrong order of elements (swapped nibbles, interleaved halves, reversed fifth bits) is a
/// permutation, so the golden must tell any two elements apart.
#[test]
fn the_golden_would_notice_any_two_elements_swapped() {
    for golden in GOLDENS.iter() {
        let len = golden.rows[0].1.len();
        for i in 0..len {
            for j in 0..i {
                let differs =
                    |(_, values): &(_, Vec<f32>)| values[i].to_bits() != values[j].to_bits();
                assert!(
                    golden.rows.iter().any(differs),
                    "{}: elements {i} and {j} are equal in every row",
                    golden.format.name()
                );
            }
        }
    }
}

/// No bit of a block is ignored: flipping any one of them changes some value of some row.
#[test]
fn the_golden_would_notice_any_flipped_bit() {
    for golden in GOLDENS.iter() {
        for bit in 0..golden.rows[0].0.len() * 8 {
            let changes = |(bytes, values): &(Vec<u8>, Vec<f32>)| {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                bits(&dequantize(golden.format, &flipped, values.len())) != bits(values)
            };
            assert!(
                golden.rows.iter().any(changes),
                "{}: bit {bit} changes nothing",
                golden.format.name()
            );
        }
    }
}

/// Value of the 16 bits by IEEE 754-2008, section 3.4, in f64, in which each of these products is
/// exact.
fn binary16_value(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023);
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 => sign * f64::INFINITY,
        _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

#[test]
fn every_f16_widens_exactly() {
    for bits in 0..=u16::MAX {
        let widened = F16(bits.to_le_bytes()).to_f32();
        let is_nan = bits & 0x7fff > 0x7c00;
        if is_nan {
            assert!(widened.is_nan(), "{bits:#06x}");
        } else {
            let value = binary16_value(bits);
            assert_eq!(f64::from(widened).to_bits(), value.to_bits(), "{bits:#06x}");
        }
    }
}
