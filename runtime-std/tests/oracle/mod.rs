//! Random models of the llama family, written as GGUF in memory, and a naive forward pass to
//! compare the engine with.

#[path = "../../../core/tests/common/noise.rs"]
mod noise;

use brooklet::core::cache::Policy;
use brooklet::core::model::{Config, Layer, Model};
use brooklet::core::quant::{F32, Format};

pub use noise::{Noise, kept};

/// The shape of a random model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub layers: usize,
    pub d_model: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ff: usize,
    pub vocab: usize,
    pub rope_dim: usize,
    pub tied: bool,
    pub factors: bool,
    /// True if attention's linear layers have biases.
    pub biases: bool,
    pub format: Format,
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// Writes a model with normal weights.
pub fn random_model(shape: Shape, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed | 1);
    let (d, q, kv) = (
        shape.d_model,
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let mut tensors: Vec<(String, usize, usize, Format)> = vec![
        ("token_embd.weight".into(), shape.vocab, d, shape.format),
        ("output_norm.weight".into(), 1, d, Format::F32),
    ];
    if !shape.tied {
        tensors.push(("output.weight".into(), shape.vocab, d, shape.format));
    }
    if shape.factors && shape.rope_dim > 0 {
        tensors.push((
            "rope_freqs.weight".into(),
            1,
            shape.rope_dim / 2,
            Format::F32,
        ));
    }
    for i in 0..shape.layers {
        for (name, rows, cols, format) in [
            ("attn_norm", 1, d, Format::F32),
            ("attn_q", q, d, shape.format),
            ("attn_k", kv, d, shape.format),
            ("attn_v", kv, d, shape.format),
            ("attn_output", d, q, shape.format),
            ("ffn_norm", 1, d, Format::F32),
            ("ffn_gate", shape.ff, d, shape.format),
            ("ffn_up", shape.ff, d, shape.format),
            ("ffn_down", d, shape.ff, shape.format),
        ] {
            tensors.push((format!("blk.{i}.{name}.weight"), rows, cols, format));
        }
        let biases = [
            ("attn_q", q),
            ("attn_k", kv),
            ("attn_v", kv),
            ("attn_output", d),
        ];
        for (name, cols) in biases.into_iter().filter(|_| shape.biases) {
            tensors.push((format!("blk.{i}.{name}.bias"), 1, cols, Format::F32));
        }
    }
    let numbers = [
        ("llama.block_count", shape.layers),
        ("llama.embedding_length", d),
        ("llama.attention.head_count", shape.heads),
        ("llama.attention.head_count_kv", shape.kv_heads),
        ("llama.attention.key_length", shape.head_dim),
        ("llama.attention.value_length", shape.head_dim),
        ("llama.rope.dimension_count", shape.rope_dim),
        ("llama.feed_forward_length", shape.ff),
        ("llama.context_length", 4096),
    ];
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((numbers.len() as u64 + 2).to_le_bytes());
    string(&mut file, "general.architecture");
    file.extend(8u32.to_le_bytes());
    string(&mut file, "llama");
    string(&mut file, "llama.attention.layer_norm_rms_epsilon");
    file.extend(6u32.to_le_bytes());
    file.extend(1e-5f32.to_le_bytes());
    for (key, value) in numbers {
        string(&mut file, key);
        file.extend(4u32.to_le_bytes());
        file.extend((value as u32).to_le_bytes());
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, rows, cols, format) in &tensors {
        string(&mut file, name);
        file.extend(2u32.to_le_bytes());
        file.extend((*cols as u64).to_le_bytes());
        file.extend((*rows as u64).to_le_bytes());
        file.extend(
            match format {
                Format::F32 => 0u32,
                Format::Q8_0 => 8,
                _ => panic!("the tests write F32 and Q8_0"),
            }
            .to_le_bytes(),
        );
        data.resize(data.len().next_multiple_of(32), 0);
        file.extend((data.len() as u64).to_le_bytes());
        write_tensor(&mut data, name, rows * cols, *cols, *format, &mut noise);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

fn write_tensor(
    data: &mut Vec<u8>,
    name: &str,
    len: usize,
    cols: usize,
    format: Format,
    noise: &mut Noise,
) {
    let scale = if name == "token_embd.weight" {
        1.0
    } else {
        1.5 / (cols as f32).sqrt()
    };
    if format == Format::Q8_0 {
        for _ in 0..len / 32 {
            data.extend(half::f16::from_f32(scale / 50.0).to_le_bytes());
            data.extend((0..32).map(|_| (noise.normal() * 50.0).clamp(-127.0, 127.0) as i8 as u8));
        }
        return;
    }
    for _ in 0..len {
        let value = match name {
            "rope_freqs.weight" => 1.0 + noise.normal().abs(),
            _ if name.contains("norm") => 1.0 + 0.1 * noise.normal(),
            _ if name.ends_with("bias") => noise.normal(),
            _ => scale * noise.normal(),
        };
        data.extend(value.to_le_bytes());
    }
}

/// A tensor as f64 rows.
fn rows(m: &brooklet::core::tensor::Matrix<'_>) -> Vec<Vec<f64>> {
    let mut row = vec![0.0; m.cols()];
    (0..m.rows())
        .map(|r| {
            m.dequantize_row(r, &mut row);
            row.iter().map(|x| f64::from(*x)).collect()
        })
        .collect()
}

/// A norm or a bias as f64.
fn numbers(row: &[F32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(x.to_f32())).collect()
}

fn apply(w: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    w.iter()
        .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
        .collect()
}

fn biased(w: &[Vec<f64>], x: &[f64], bias: &[f64]) -> Vec<f64> {
    let mut out = apply(w, x);
    add(&mut out, bias);
    out
}

fn norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

/// A forward pass by definition. The policy gives the tokens that are kept when each token is
/// processed. Every score is computed from unrotated keys, which are rotated at their place among
/// the kept tokens.
pub struct Oracle {
    config: Config,
    layers: Vec<[Vec<Vec<f64>>; 9]>,
    /// Biases of queries, keys, values and the attention output; empty for none.
    biases: Vec<[Vec<f64>; 4]>,
    embedding: Vec<Vec<f64>>,
    output_norm: Vec<f64>,
    output: Vec<Vec<f64>>,
    factors: Vec<f64>,
    least_weight: f64,
}

impl Oracle {
    pub fn new(model: &Model<'_>) -> Oracle {
        let layer = |l: &Layer<'_>| {
            [
                vec![numbers(
                    l.attention
                        .norm
                        .expect("llama norms before attention")
                        .weight,
                )],
                rows(&l.attention.query.weight),
                rows(&l.attention.key.weight),
                rows(
                    &l.attention
                        .value
                        .expect("the oracle computes values")
                        .weight,
                ),
                rows(&l.attention.output.weight),
                vec![numbers(
                    l.feed_forward
                        .norm
                        .expect("llama norms before the feed-forward layer")
                        .weight,
                )],
                rows(
                    &l.feed_forward
                        .gate
                        .expect("llama's feed-forward layer is gated")
                        .weight,
                ),
                rows(&l.feed_forward.up.weight),
                rows(&l.feed_forward.down.weight),
            ]
        };
        let biases = |l: &Layer<'_>| {
            let a = &l.attention;
            let value = a.value.and_then(|value| value.bias);
            [a.query.bias, a.key.bias, value, a.output.bias]
                .map(|bias| bias.map_or_else(Vec::new, numbers))
        };
        Oracle {
            config: model.config,
            layers: model.layers.iter().map(layer).collect(),
            biases: model.layers.iter().map(biases).collect(),
            embedding: rows(&model.embedding),
            output_norm: numbers(model.output_norm.weight),
            output: rows(&model.output),
            factors: model
                .rope_factors
                .map_or(vec![1.0; model.config.rope_dim / 2], |f| numbers(f.short)),
            least_weight: 0.0,
        }
    }

    /// Makes the pass leave out values whose softmax weight is under `least`.
    pub fn without_weights_under(self, least: f64) -> Oracle {
        Oracle {
            least_weight: least,
            ..self
        }
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        let base = self.config.kinds.of(0).rotation.unwrap_or(1.0);
        for (i, pair) in head[..self.config.rope_dim].chunks_exact_mut(2).enumerate() {
            let exponent = -(2.0 * i as f64) / self.config.rope_dim as f64;
            let angle = position as f64 * f64::from(base).powf(exponent) / self.factors[i];
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * angle.cos() - b * angle.sin();
            pair[1] = a * angle.sin() + b * angle.cos();
        }
    }

    /// Returns the logits after every token.
    pub fn logits(&self, tokens: &[u32], policy: Policy) -> Vec<Vec<f64>> {
        if let Policy::Recompute { window } = policy {
            return (0..tokens.len())
                .map(|i| {
                    let from = (i + 1).saturating_sub(window);
                    self.logits(&tokens[from..=i], Policy::Dense { capacity: window })
                        .pop()
                        .unwrap()
                })
                .collect();
        }
        self.logits_of(tokens, |t| kept(t, policy.sinks(), policy.window(), 0))
    }

    /// Returns the logits after every token, where `kept(t)` are the tokens that token `t` attends
    /// to, itself last.
    pub fn logits_of(&self, tokens: &[u32], kept: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<f64>> {
        let eps = f64::from(self.config.norm_eps);
        let mut streams: Vec<Vec<f64>> = tokens
            .iter()
            .map(|t| self.embedding[*t as usize].clone())
            .collect();
        for (w, [b_q, b_k, b_v, b_o]) in self.layers.iter().zip(&self.biases) {
            let normed: Vec<Vec<f64>> = streams.iter().map(|x| norm(x, &w[0][0], eps)).collect();
            let keys: Vec<Vec<f64>> = normed.iter().map(|x| biased(&w[2], x, b_k)).collect();
            let values: Vec<Vec<f64>> = normed.iter().map(|x| biased(&w[3], x, b_v)).collect();
            for (t, x) in streams.iter_mut().enumerate() {
                let query = biased(&w[1], &normed[t], b_q);
                let attended = self.attend(&query, &keys, &values, &kept(t));
                add(x, &biased(&w[4], &attended, b_o));
                let h = norm(x, &w[5][0], eps);
                let (gate, up) = (apply(&w[6], &h), apply(&w[7], &h));
                let act: Vec<f64> = gate
                    .iter()
                    .zip(up)
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect();
                add(x, &apply(&w[8], &act));
            }
        }
        streams
            .iter()
            .map(|x| apply(&self.output, &norm(x, &self.output_norm, eps)))
            .collect()
    }

    fn attend(
        &self,
        query: &[f64],
        keys: &[Vec<f64>],
        values: &[Vec<f64>],
        kept: &[usize],
    ) -> Vec<f64> {
        let (d, group) = (self.config.head_dim, self.config.group());
        let mut out = Vec::new();
        for (h, q) in query.chunks_exact(d).enumerate() {
            let columns = h / group * d..(h / group + 1) * d;
            let mut q = q.to_vec();
            self.rotate(&mut q, kept.len() - 1);
            let scores: Vec<f64> = kept
                .iter()
                .enumerate()
                .map(|(place, token)| {
                    let mut k = keys[*token][columns.clone()].to_vec();
                    self.rotate(&mut k, place);
                    q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for column in columns {
                let weighted = kept
                    .iter()
                    .zip(&weights)
                    .filter(|(_, w)| **w >= self.least_weight * total)
                    .map(|(t, w)| w * values[*t][column]);
                out.push(weighted.sum::<f64>() / total);
            }
        }
        out
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
