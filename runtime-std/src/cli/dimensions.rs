//! `brooklet plan -m MODELS.json`: the exact layouts of models that are given by their dimensions
//! alone.
//!
//! The numbers are those of Tables 1 and 7 of the slim attention paper (Graef and Wasielewski,
//! arXiv 2503.05840): elements, not bytes, of one sequence. Beside its savings for encoder-decoder
//! models, which count the encoder's output as free, stand those that count it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use brooklet_core::attention::Shape;
use brooklet_core::cache::Layout;
use brooklet_core::nn::rope::Pairs;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::json::write_json;

/// Sequences that share a pass over the weights, in the paper's second column of reads.
const BATCH: f64 = 64.0;

/// A model's dimensions.
#[derive(Clone, Debug, Deserialize)]
pub struct Dimensions {
    name: String,
    d_model: usize,
    heads: usize,
    kv_heads: Option<usize>,
    head_dim: usize,
    layers: usize,
    context: usize,
    rotated: bool,
    /// Vectors of the encoder, for encoder-decoder models.
    frames: Option<usize>,
    /// Feed-forward columns; with `vocab`, for the elements that a pass reads.
    ff: Option<usize>,
    vocab: Option<usize>,
}

/// One figure of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its kind.
    pub name: &'static str,
    /// Its value: elements, or a ratio.
    pub value: f64,
}

/// A row of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The model.
    pub name: String,
    /// Its smallest exact layout for the tokens of its decoder.
    pub layout: &'static str,
    /// The reason for that one.
    pub why: &'static str,
    /// Figures by name.
    pub figures: Vec<Figure>,
}

/// True if a path names dimensions and not a model.
pub fn is_dimensions(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "json")
}

/// Prints the tables of the models in a file.
pub fn dimensions(path: &str, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let read = |error| Failure::Read {
        path: path.into(),
        error,
    };
    let text = fs::read_to_string(path).map_err(read)?;
    let models: Vec<Dimensions> =
        serde_json::from_str(&text).map_err(|error| Failure::Input(format!("{path}: {error}")))?;
    let rows: Vec<Row> = models
        .iter()
        .map(|model| model.check().map(|()| model.row()))
        .collect::<Result<_, _>>()?;
    if json {
        return write_json(out, &rows);
    }
    print(&rows, out).map_err(Failure::Output)
}

/// Largest dimension that is accepted, so that products of four fit.
const MOST: usize = 1 << 24;

impl Dimensions {
    fn check(&self) -> Result<(), Failure> {
        let kv_heads = self.kv_heads.unwrap_or(self.heads);
        let numbers = [
            self.d_model,
            self.heads,
            kv_heads,
            self.head_dim,
            self.layers,
            self.context,
            self.frames.unwrap_or(1),
            self.ff.unwrap_or(1),
            self.vocab.unwrap_or(1),
        ];
        let product = numbers[..6]
            .iter()
            .try_fold(1usize, |product, number| product.checked_mul(*number));
        if numbers.iter().any(|number| !(1..=MOST).contains(number))
            || !self.heads.is_multiple_of(kv_heads)
            || product.is_none()
        {
            return Err(Failure::Input(format!(
                "{}: a model cannot have these dimensions",
                self.name
            )));
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape {
            d_model: self.d_model,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            head_dim: self.head_dim,
            rope_dim: if self.rotated { self.head_dim } else { 0 },
            rope_pairs: Pairs::Neighbours,
        }
    }

    fn row(&self) -> Row {
        let shape = self.shape();
        let (layout, why) = shape.pick();
        let figures = match self.frames {
            None => self.decoder(),
            Some(frames) => self.encoder_decoder(frames),
        };
        Row {
            name: self.name.clone(),
            layout: layout.name(),
            why: why.text(),
            figures: figures
                .into_iter()
                .map(|(name, value)| Figure { name, value })
                .collect(),
        }
    }

    fn decoder(&self) -> Vec<(&'static str, f64)> {
        let shape = self.shape();
        let of = |layout| (shape.elements(layout) * self.layers * self.context) as f64;
        let (kv, smallest) = (of(Layout::Kv), of(shape.pick().0));
        vec![
            ("context memory", kv),
            ("smallest", smallest),
            ("savings", kv / smallest),
        ]
    }

    /// Table 7 of the paper. Option 1 halves both caches; option 2 keeps the encoder's output,
    /// once, and half of the decoder's own.
    fn encoder_decoder(&self, frames: usize) -> Vec<(&'static str, f64)> {
        let shape = self.shape();
        let of = |layout, tokens: usize| (tokens * shape.elements(layout) * self.layers) as f64;
        let (cross, own) = (of(Layout::Kv, frames), of(Layout::Kv, self.context));
        // The encoder's output itself, once for all layers: layout e.
        let encoded = (frames * shape.d_model) as f64;
        let (baseline, option_1) = (cross + own, (cross + own) / 2.0);
        let option_2 = of(shape.pick().0, self.context);
        let mut figures = vec![
            ("context memory", baseline),
            ("E", encoded),
            ("cross", cross),
            ("self", own),
            ("baseline", baseline),
            ("option 1", option_1),
            ("option 2", option_2),
            ("savings", baseline / option_2),
            ("smallest", option_2 + encoded),
            ("savings with E", baseline / (option_2 + encoded)),
        ];
        if let (Some(ff), Some(vocab)) = (self.ff, self.vocab) {
            let (d, layers) = (self.d_model as f64, self.layers as f64);
            // What a decoder's pass reads: two attentions less the cross-attention's keys and
            // values, the feed-forward layer, the output.
            let weights = vocab as f64 * d + layers * (6.0 * d * d + 2.0 * d * ff as f64);
            let options = [
                (baseline, weights),
                (option_1, weights + layers * d * d),
                (option_2, weights + 2.0 * layers * d * d),
            ];
            let parameters = ["parameters", "parameters 1", "parameters 2"];
            figures.extend(
                parameters
                    .into_iter()
                    .zip(options.map(|(_, weights)| weights)),
            );
            let columns = [
                (
                    1.0,
                    ["reads", "reads 1", "reads 2"],
                    ["speedup 1", "speedup 2"],
                ),
                (
                    BATCH,
                    ["batch reads", "batch reads 1", "batch reads 2"],
                    ["batch speedup 1", "batch speedup 2"],
                ),
            ];
            for (batch, reads, speedups) in columns {
                let values = options.map(|(cache, weights)| cache + weights / batch);
                figures.extend(reads.into_iter().zip(values));
                figures.extend(
                    speedups
                        .into_iter()
                        .zip([values[0] / values[1], values[0] / values[2]]),
                );
            }
        }
        figures
    }
}

fn print(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    let width = rows
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    writeln!(
        out,
        "{:width$}  {:>10}  {:6}  {:>10}  {:>6}  why",
        "model", "kv", "layout", "elements", "saves"
    )?;
    for row in rows {
        let of = |name: &str| {
            row.figures
                .iter()
                .find(|figure| figure.name == name)
                .map(|figure| figure.value)
        };
        let millions =
            |name: &str| of(name).map_or("-".into(), |value| format!("{:.1} M", value / 1e6));
        let saves = of("savings with E")
            .or_else(|| of("savings"))
            .unwrap_or(1.0);
        let layout = if of("E").is_some() {
            "e, x"
        } else {
            row.layout
        };
        writeln!(
            out,
            "{:width$}  {:>10}  {:6}  {:>10}  {:>5.2}x  {}",
            row.name,
            millions("context memory"),
            layout,
            millions("smallest"),
            saves,
            row.why
        )?;
    }
    for row in rows
        .iter()
        .filter(|row| row.figures.iter().any(|figure| figure.name == "E"))
    {
        writeln!(out, "\n{}", row.name)?;
        for figure in &row.figures {
            if figure.value < 1e4 {
                writeln!(out, "  {:16} {:>10.2}x", figure.name, figure.value)?;
            } else {
                writeln!(out, "  {:16} {:>10.1} M", figure.name, figure.value / 1e6)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The committed dimensions, and what the paper prints for them.
    const MODELS: &str = include_str!("../../models/dimensions.json");

    /// `value` with as many digits, and in the unit, that `printed` has; ties away from zero.
    fn like(printed: &str, value: f64) -> String {
        let unit = printed.chars().last().unwrap();
        let digits = printed
            .trim_end_matches(unit)
            .split_once('.')
            .map_or(0, |(_, after)| after.len());
        let scale = match unit {
            'B' => 1e9,
            'M' => 1e6,
            'x' => 1.0,
            _ => panic!("{printed}"),
        };
        let power = 10f64.powi(digits as i32);
        let rounded = (value / scale * power + 1e-9).round() / power;
        format!("{rounded:.digits$}{unit}")
    }

    #[test]
    fn the_paper_s_tables_come_out_to_the_printed_digits() {
        let models: Vec<Dimensions> = serde_json::from_str(MODELS).unwrap();
        let all: Vec<Value> = serde_json::from_str(MODELS).unwrap();
        let mut compared = 0;
        for (model, value) in models.iter().zip(&all) {
            model.check().unwrap();
            let row = model.row();
            for (name, printed) in value["paper"].as_object().into_iter().flatten() {
                let figure = row
                    .figures
                    .iter()
                    .find(|figure| figure.name == name)
                    .unwrap();
                let printed = printed.as_str().unwrap();
                assert_eq!(like(printed, figure.value), printed, "{} {name}", row.name);
                compared += 1;
            }
        }
        assert_eq!(compared, 24 + 3 + 5 * 20);
    }

    #[test]
    fn whisper_saves_less_when_the_encoder_s_output_counts() {
        let models: Vec<Dimensions> = serde_json::from_str(MODELS).unwrap();
        let with_e = |name: &str| {
            let row = models
                .iter()
                .find(|model| model.name == name)
                .unwrap()
                .row();
            row.figures
                .iter()
                .find(|figure| figure.name == "savings with E")
                .unwrap()
                .value
        };
        assert_eq!(
            format!(
                "{:.1} {:.1}",
                with_e("Whisper tiny"),
                with_e("Whisper large")
            ),
            "4.7 7.9"
        );
    }
}
