//! Slim attention on recorded layers: the gain of each part of the construction.
//!
//! ```text
//! cargo run --release --example slim_layers -- LAYERS.gguf \
//!     [--maps MAPS.gguf] [--cache-type q8_0] [--rank 32]
//! ```
//!
//! `research/slim/moonshine.py` and `whisper.py` write `LAYERS.gguf`: the weights of attention
//! layers and their inputs from one recording (for calibration) and from another (for the errors).
//! For every self-attention layer the program prints cond(W_K) and the relative error of the
//! attention output, with keys and values in the cache, and with keys and channels, part by part.
//! `--maps` writes the maps of one rank, to decode with.

use std::error::Error;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use brooklet::convert::gguf_writer::Header;
use brooklet::convert::slim::file::stored;
use brooklet::convert::slim::layer::{
    Heads, Parts, Rotation, Sample, SinkValues, TYPES, transposed, type_index,
};
use brooklet::core::cache::ElementType;
use brooklet::core::gguf::{Gguf, Value};
use brooklet::core::quant::Format;
use brooklet::core::tensor::Matrix;
use brooklet::system::new_file::NewFile;
use clap::Parser;
use faer::Mat;

#[derive(Parser)]
struct Arguments {
    /// Recorded layers
    layers: PathBuf,
    /// File that maps are written to
    #[arg(long)]
    maps: Option<PathBuf>,
    /// Element type that maps are made for
    #[arg(long, default_value = "q8_0")]
    cache_type: String,
    /// Rank of the maps that are written
    #[arg(long, default_value_t = 32)]
    rank: usize,
    /// First tokens whose values are kept as they are
    #[arg(long, default_value_t = 4)]
    sinks: usize,
}

/// Steps of the construction, from none of its parts to all of them; the last leaves `W_V` out of
/// the file.
const STEPS: [(&str, Parts); 5] = [
    (
        "plain",
        Parts {
            centring: false,
            sinks: SinkValues::Cache,
            noise: false,
        },
    ),
    (
        "+ centring",
        Parts {
            centring: true,
            sinks: SinkValues::Cache,
            noise: false,
        },
    ),
    (
        "+ exact sinks",
        Parts {
            centring: true,
            sinks: SinkValues::Inputs,
            noise: false,
        },
    ),
    ("+ map for the noise", Parts::ALL),
    (
        "W_V left out",
        Parts {
            sinks: SinkValues::Keys,
            ..Parts::ALL
        },
    ),
];

/// Ranks of the table, by element type.
const RANKS: [(ElementType, &[usize]); 2] = [
    (ElementType::F16, &[0, 4, 8]),
    (ElementType::Q8_0, &[0, 8, 32]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let bytes = fs::read(&arguments.layers)?;
    let file = Gguf::parse(&bytes)?;
    let count = number(&file, "layers.count").ok_or("no layers.count")? as usize;
    let layers: Vec<(usize, String)> = (0..count)
        .filter(|index| text(&file, &format!("layers.{index}.kind")) == Some("self".into()))
        .filter_map(|index| Some((index, text(&file, &format!("layers.{index}.name"))?)))
        .collect();
    let samples: Vec<Sample> = layers
        .iter()
        .map(|(index, _)| sample(&file, *index, arguments.sinks))
        .collect::<Result<_, _>>()?;
    println!(
        "{}: {} self-attention layers\n",
        arguments.layers.display(),
        samples.len()
    );
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    let mut conditions = Vec::new();
    for cache_type in [ElementType::F16, ElementType::Q8_0] {
        rows.push((format!("kv {}", cache_type.name()), Vec::new()));
    }
    for (cache_type, ranks) in RANKS {
        for rank in ranks {
            for (step, _) in STEPS {
                rows.push((
                    format!("k+{rank} {}, {step}", cache_type.name()),
                    Vec::new(),
                ));
            }
        }
    }
    for sample in &samples {
        let mut at = 2;
        for (cache_type, ranks) in RANKS {
            let of_type = type_index(cache_type);
            for rank in ranks {
                for (_, parts) in STEPS {
                    let analysis = sample.analyse(parts, &[*rank], f64::INFINITY, cache_type)?;
                    let chosen = analysis.chosen.ok_or("an error is NaN")?;
                    rows[at].1.push(chosen.of_output[of_type]);
                    at += 1;
                    if at == 3 {
                        conditions.push(analysis.condition);
                        rows[0].1.push(analysis.kv[type_index(ElementType::F16)]);
                        rows[1].1.push(analysis.kv[type_index(ElementType::Q8_0)]);
                    }
                }
            }
        }
    }
    let conditions: Vec<String> = conditions
        .iter()
        .map(|condition| format!("{condition:.2e}"))
        .collect();
    let of_inputs: Option<Vec<_>> = samples.iter().map(Sample::input_errors).collect();
    for (index, cache_type) in [ElementType::F16, ElementType::Q8_0]
        .into_iter()
        .enumerate()
    {
        if let Some(errors) = &of_inputs {
            let of_type = errors
                .iter()
                .map(|errors| errors[type_index(cache_type)])
                .collect();
            rows.insert(2 + index, (format!("x {}", cache_type.name()), of_type));
        }
    }
    println!("cond(W_K) by layer: {}\n", conditions.join(" "));
    println!("error of the attention output in percent: median (range), then by layer");
    for (name, errors) in &rows {
        let mut sorted = errors.clone();
        sorted.sort_by(f64::total_cmp);
        let percent = |error: &f64| format!("{:.3}", 100.0 * error);
        let by_layer: Vec<String> = errors.iter().map(percent).collect();
        println!(
            "{name:34} {:>8} ({} - {})  {}",
            percent(&sorted[sorted.len() / 2]),
            percent(&sorted[0]),
            percent(&sorted[sorted.len() - 1]),
            by_layer.join(" ")
        );
    }
    if let Some(path) = &arguments.maps {
        write_maps(&arguments, path, &layers, &samples)?;
    }
    Ok(())
}

fn number(file: &Gguf<'_>, key: &str) -> Option<u64> {
    file.get(key)?.as_u64()
}

fn text(file: &Gguf<'_>, key: &str) -> Option<String> {
    file.get(key)?.as_str().map(str::to_string)
}

fn matrix<'f>(file: &Gguf<'f>, name: &str) -> Result<Matrix<'f>, Box<dyn Error>> {
    let tensor = file
        .tensor(name)
        .ok_or_else(|| format!("no tensor {name}"))?;
    let format = tensor.format().ok_or("an unknown format")?;
    Matrix::new(format, tensor.rows(), tensor.cols(), tensor.data())
        .map_err(|_| format!("{name} has another size").into())
}

/// Returns one row of a tensor, if the tensor exists.
fn row(file: &Gguf<'_>, name: &str) -> Option<Vec<f64>> {
    let matrix = matrix(file, name).ok()?;
    let mut row = vec![0.0; matrix.cols()];
    matrix.dequantize_row(0, &mut row);
    Some(row.into_iter().map(f64::from).collect())
}

fn sample(file: &Gguf<'_>, index: usize, sinks: usize) -> Result<Sample, Box<dyn Error>> {
    let of = |part: &str| format!("layers.{index}.{part}");
    let weight = |part: &str| Ok::<_, Box<dyn Error>>(transposed(&matrix(file, &of(part))?));
    let inputs = |set: &str| -> Vec<Mat<f64>> {
        (0..)
            .map_while(|n| matrix(file, &of(&format!("input.{set}.{n}"))).ok())
            .map(|rows| transposed(&rows).transpose().to_owned())
            .collect()
    };
    let (w_q, w_k) = (weight("query.weight")?, weight("key.weight")?);
    let zeros = |width: usize| vec![0.0; width];
    let of_queries = row(file, &of("query.bias"));
    let of_keys = row(file, &of("key.bias"));
    let biases = (of_queries.is_some() || of_keys.is_some()).then(|| {
        (
            of_queries.unwrap_or_else(|| zeros(w_q.ncols())),
            of_keys.unwrap_or_else(|| zeros(w_k.ncols())),
        )
    });
    let heads = number(file, &of("heads")).ok_or("no heads")? as usize;
    Ok(Sample {
        w_q,
        w_k,
        w_v: weight("value.weight")?,
        w_o: weight("output.weight")?,
        calibration: inputs("calib"),
        test: inputs("test"),
        biases,
        heads: Heads {
            heads,
            kv_heads: heads,
            sinks,
        },
        rotation: Rotation::plain(
            number(file, &of("rope_dim")).unwrap_or(0) as usize,
            file.get(&of("rope_theta"))
                .and_then(|value| value.as_f32())
                .unwrap_or(1e4),
        ),
    })
}

/// Writes the maps of one rank: `layers.N.map`, `.channels`, `.mean`, `.offset`.
fn write_maps(
    arguments: &Arguments,
    path: &Path,
    layers: &[(usize, String)],
    samples: &[Sample],
) -> Result<(), Box<dyn Error>> {
    let cache_type = TYPES
        .into_iter()
        .find(|of| of.name() == arguments.cache_type)
        .ok_or("the cache type is f32, f16 or q8_0")?;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for ((index, _), sample) in layers.iter().zip(samples) {
        let analysis = sample.analyse(Parts::ALL, &[arguments.rank], f64::INFINITY, cache_type)?;
        let layer = &analysis.chosen.ok_or("an error is NaN")?.layer;
        let mut add = |part: &str, matrix: &Mat<f64>| {
            let mut dims = vec![matrix.ncols(), matrix.nrows()];
            dims.truncate(if matrix.nrows() == 1 { 1 } else { 2 });
            let mut bytes = Vec::new();
            // The same formats as in a slim file.
            let format = if matrix.nrows() > 1 {
                Format::F16
            } else {
                Format::F32
            };
            let matrix = stored(matrix, format);
            for i in 0..matrix.nrows() {
                (0..matrix.ncols())
                    .for_each(|j| bytes.extend((matrix[(i, j)] as f32).to_le_bytes()));
            }
            tensors.push((format!("layers.{index}.{part}"), dims, bytes));
        };
        add("map", &layer.map);
        if layer.rank() > 0 {
            add("channels", &layer.channels);
        }
        if let Some((mean, offset)) = &layer.mean {
            add("mean", &Mat::from_fn(1, mean.len(), |_, j| mean[j]));
            add("offset", &Mat::from_fn(1, offset.len(), |_, j| offset[j]));
        }
    }
    let mut header = Header::default();
    header.set("general.architecture", Value::Str(b"layers"));
    for (name, dims, _) in &tensors {
        header.tensor(name, dims, Format::F32)?;
    }
    let mut body = header.write(BufWriter::new(NewFile::create(path, false)?))?;
    for (.., bytes) in &tensors {
        body.write(bytes)?;
    }
    let (file, _) = body.finish()?;
    file.into_inner()
        .map_err(|error| error.into_error())?
        .finish()?;
    println!(
        "\nmaps of rank {} for {}: {}",
        arguments.rank,
        cache_type.name(),
        path.display()
    );
    Ok(())
}
