//! The choice of a format for each tensor.
//!
//! The rules are those of llama.cpp's `llama-quantize` (`src/llama-quant.cpp`) without `--pure` and
//! without an importance matrix, less the exceptions of architectures that brooklet does not run
//! (Falcon's among them).

use brooklet_core::gguf::{Gguf, TensorInfo};
use brooklet_core::quant::Format;

use super::target::Target;

/// Matrices whose names hold one of these keep their format: they are small, or they are added
/// instead of multiplied.
const KEPT: [&str; 37] = [
    "_norm.weight",
    // Routers of experts.
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    // Gemma 3n.
    "altup",
    "laurel",
    "per_layer_model_proj",
    // Short convolutions.
    "ssm_conv1d",
    "shortconv.conv.weight",
    // Indexers of sparse attention.
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    // RWKV.
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    // T5's bias by distance.
    "attn_rel_b.weight",
    // Pictures and sound.
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
    // Learned positions and segments.
    "position_embd.weight",
    "token_types.weight",
];

/// The role of a matrix, as far as mixes distinguish roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Output,
    Embeddings,
    /// Values, alone or together with keys and queries.
    Values,
    Keys,
    AttentionOutput,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Role {
        let has = |part| name.contains(part);
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embeddings,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => {
                Role::Values
            }
            _ if has("attn_k.weight") => Role::Keys,
            // Before the parts of the feed-forward network: a name may hold several of these.
            _ if has("attn_q.weight") => Role::Other,
            _ if has("attn_output.weight") => Role::AttentionOutput,
            _ if has("ffn_up") || has("ffn_gate") => Role::Other,
            _ if has("ffn_down") => Role::Down,
            _ => Role::Other,
        }
    }
}

/// Chooses the formats of a file's tensors, which it gets in the new file's order.
#[derive(Debug)]
pub(super) struct Chooser {
    target: Target,
    /// The embeddings are the output matrix too.
    tied: bool,
    experts: u64,
    /// Query heads for each key head.
    group: u64,
    layers: usize,
    /// Llama 2's 70B and models of its kind, whose value matrices are small: eight query heads
    /// share them.
    shared_values: bool,
    /// Tensors of [`Role::Values`] in the file, and those of them and of [`Role::Down`] that were
    /// shown.
    all_values: usize,
    values: usize,
    downs: usize,
}

impl Chooser {
    pub(super) fn new(file: &Gguf<'_>, target: Target) -> Chooser {
        let architecture = file
            .get("general.architecture")
            .and_then(|value| value.as_str());
        let number = |key| {
            let value = file.get_scoped(architecture?, key)?;
            // If there is one for each layer, the first layer's.
            let value = value.as_array().map_or(Some(value), |array| array.get(0))?;
            value.as_u64()
        };
        let heads = number("attention.head_count").unwrap_or(1);
        let key_heads = number("attention.head_count_kv").unwrap_or(heads);
        let layers = number("block_count").unwrap_or(0);
        Chooser {
            target,
            tied: file.tensor("output.weight").is_none(),
            experts: number("expert_count").unwrap_or(0),
            group: heads.checked_div(key_heads).unwrap_or(0),
            layers: usize::try_from(layers).unwrap_or(usize::MAX),
            shared_values: layers == 80
                && match architecture {
                    Some("llama") => heads != key_heads,
                    other => other == Some("qwen2"),
                },
            all_values: file
                .tensors()
                .filter(|tensor| Role::of(tensor.name()) == Role::Values)
                .count(),
            values: 0,
            downs: 0,
        }
    }

    /// The format that the next tensor gets; `None` if it keeps its own.
    pub(super) fn format_of(&mut self, tensor: &TensorInfo<'_>) -> Option<Format> {
        if !is_weight_matrix(tensor) {
            return None;
        }
        let base = self.target.format();
        if !base.is_quantized() {
            return Some(base);
        }
        let wanted = match Role::of(tensor.name()) {
            Role::Output => self.output(tensor),
            Role::Embeddings if self.tied => self.output(tensor),
            Role::Values => self.next_values(),
            Role::Keys if self.experts == 8 => Format::Q8_0,
            Role::AttentionOutput => self.attention_output(),
            Role::Down => self.next_down(tensor),
            _ => base,
        };
        Some(that_fits(wanted, tensor.cols()))
    }

    /// The output matrix gets six bits at least.
    fn output(&self, tensor: &TensorInfo<'_>) -> Format {
        let base = self.target.format();
        if base == Format::Q8_0 || !tensor.cols().is_multiple_of(base.block_len()) {
            return Format::Q8_0;
        }
        Format::Q6_K
    }

    fn next_values(&mut self) -> Format {
        let i = self.values;
        self.values += 1;
        if self.experts == 8 {
            return Format::Q8_0;
        }
        let format = match self.target {
            Target::Q2_K if self.group >= 4 => Format::Q4_K,
            Target::Q2_K => Format::Q3_K,
            Target::Q3_K_M if i >= 2 => Format::Q4_K,
            Target::Q3_K_M | Target::Q3_K_L => Format::Q5_K,
            Target::IQ4_NL if self.group >= 4 => Format::Q5_K,
            Target::Q4_K_M | Target::Q5_K_M if gets_more_bits(i, self.all_values) => Format::Q6_K,
            Target::Q4_K_S if i < 4 => Format::Q5_K,
            other => other.format(),
        };
        match format {
            Format::Q3_K | Format::Q4_K if self.shared_values => Format::Q5_K,
            format => format,
        }
    }

    fn next_down(&mut self, tensor: &TensorInfo<'_>) -> Format {
        let counted = self.downs;
        self.downs += 1;
        // A layer of several experts may have several such tensors.
        let i = match layer_of(tensor.name()) {
            Some(layer) if self.experts > 1 => layer as usize,
            _ => counted,
        };
        let n = self.layers;
        match self.target {
            Target::Q2_K => Format::Q3_K,
            Target::Q3_K_M if i >= n / 16 => Format::Q4_K,
            Target::Q3_K_M | Target::Q3_K_L => Format::Q5_K,
            Target::Q4_K_M | Target::Q5_K_M if gets_more_bits(i, n) => Format::Q6_K,
            Target::Q4_K_S | Target::IQ4_NL if i < n / 8 => Format::Q5_K,
            other => other.format(),
        }
    }

    fn attention_output(&self) -> Format {
        match self.target {
            Target::Q2_K
            | Target::Q3_K_S
            | Target::Q3_K_M
            | Target::IQ4_NL
            | Target::Q4_K_S
            | Target::Q4_K_M
                if self.experts == 8 =>
            {
                Format::Q5_K
            }
            Target::Q2_K => Format::Q3_K,
            Target::Q3_K_M => Format::Q4_K,
            Target::Q3_K_L if self.experts != 8 => Format::Q5_K,
            other => other.format(),
        }
    }
}

/// The first and the last eighth of the layers, and every third between.
const fn gets_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= layers.saturating_mul(7) / 8 || (layer - eighth) % 3 == 2
}

/// `format`, or one of smaller blocks for rows that are not whole blocks.
const fn that_fits(format: Format, cols: usize) -> Format {
    if cols.is_multiple_of(format.block_len()) {
        return format;
    }
    let smaller = match format {
        Format::Q2_K | Format::Q3_K => Format::Q4_0,
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        other => other,
    };
    if cols.is_multiple_of(smaller.block_len()) {
        smaller
    } else {
        Format::F16
    }
}

/// True for a matrix, or a stack of them, that multiplies activations.
fn is_weight_matrix(tensor: &TensorInfo<'_>) -> bool {
    let name = tensor.name();
    tensor.rows() > 1 && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}

/// The order of the tensors in the new file: those of no layer first, then layer by layer, each by
/// name.
pub(super) fn order<'a>(tensor: &TensorInfo<'a>) -> (Option<u32>, &'a str) {
    (layer_of(tensor.name()), tensor.name())
}

/// The layer in a tensor's name.
fn layer_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("blk.")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use brooklet_core::gguf::Value;

    use super::*;
    use crate::convert::gguf_writer::Header;

    /// The chosen formats of these tensors of f32, in the new file's order.
    fn chosen(
        metadata: &[(&'static str, Value<'static>)],
        tensors: &[(&'static str, &[usize])],
        target: Target,
    ) -> Vec<(String, Option<Format>)> {
        let mut header = Header::default();
        for (key, value) in metadata {
            header.set(key, *value);
        }
        for (name, dims) in tensors {
            header.tensor(name, dims, Format::F32).unwrap();
        }
        let mut body = header.write(Vec::new()).unwrap();
        for (_, dims) in tensors {
            body.write(&vec![0; dims.iter().product::<usize>() * 4])
                .unwrap();
        }
        let (bytes, _) = body.finish().unwrap();
        let file = Gguf::parse(&bytes).unwrap();
        let mut chooser = Chooser::new(&file, target);
        let mut tensors: Vec<TensorInfo<'_>> = file.tensors().collect();
        tensors.sort_by_key(order);
        let mut chosen =
            |tensor: &TensorInfo<'_>| (tensor.name().to_owned(), chooser.format_of(tensor));
        tensors.iter().map(&mut chosen).collect()
    }

    fn formats(tensors: &[(&'static str, &[usize])], target: Target) -> Vec<Option<Format>> {
        let chosen = chosen(&[], tensors, target);
        chosen.into_iter().map(|(_, format)| format).collect()
    }

    #[test]
    fn only_weight_matrices_are_converted() {
        let tensors: [(&str, &[usize]); 7] = [
            ("a.weight", &[32, 2]),
            ("b.weight", &[32]),
            ("c.weight", &[32, 1, 1]),
            ("d.bias", &[32, 2]),
            ("e.weight", &[32, 1, 2]),
            ("f_norm.weight", &[32, 2]),
            ("g.ffn_gate_inp.weight", &[32, 2]),
        ];
        for target in [Target::Q4_0, Target::F16] {
            let yes = Some(target.format());
            assert_eq!(
                formats(&tensors, target),
                [yes, None, None, None, yes, None, None]
            );
        }
    }

    #[test]
    fn the_output_matrix_keeps_eight_bits_also_where_it_is_the_embeddings() {
        let tied: [(&str, &[usize]); 2] = [("token_embd.weight", &[32, 2]), ("x.weight", &[32, 2])];
        assert_eq!(
            formats(&tied, Target::Q4_0),
            [Some(Format::Q8_0), Some(Format::Q4_0)]
        );
        assert_eq!(formats(&tied, Target::F16), [Some(Format::F16); 2]);
        let untied: [(&str, &[usize]); 2] =
            [("output.weight", &[32, 2]), ("token_embd.weight", &[32, 2])];
        assert_eq!(
            formats(&untied, Target::Q5_0),
            [Some(Format::Q8_0), Some(Format::Q5_0)]
        );
    }

    #[test]
    fn rows_that_are_not_whole_blocks_become_f16() {
        let tensors: [(&str, &[usize]); 2] = [("output.weight", &[33, 2]), ("x.weight", &[172, 2])];
        assert_eq!(formats(&tensors, Target::Q8_0), [Some(Format::F16); 2]);
    }

    #[test]
    fn attention_beside_eight_experts_keeps_eight_bits() {
        let tensors: [(&str, &[usize]); 3] = [
            ("blk.0.attn_k.weight", &[32, 2]),
            ("blk.0.attn_q.weight", &[32, 2]),
            ("blk.0.attn_v.weight", &[32, 2]),
        ];
        for (experts, format) in [(8, Format::Q8_0), (4, Format::Q4_1)] {
            let metadata = [
                ("general.architecture", Value::Str(b"llama")),
                ("llama.expert_count", Value::U32(experts)),
            ];
            let chosen = chosen(&metadata, &tensors, Target::Q4_1);
            let formats: Vec<_> = chosen
                .into_iter()
                .map(|(_, format)| format.unwrap())
                .collect();
            assert_eq!(formats, [format, Format::Q4_1, format]);
        }
    }

    #[test]
    fn layers_are_in_the_order_of_their_numbers() {
        let names = [
            "blk.10.b",
            "blk.9.b",
            "blk.9.a",
            "blk.x",
            "output",
            "blk.99999999999.a",
        ];
        let tensors: Vec<(&str, &[usize])> =
            names.iter().map(|name| (*name, &[1usize][..])).collect();
        let order: Vec<String> = chosen(&[], &tensors, Target::F16)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            order,
            [
                "blk.99999999999.a",
                "blk.x",
                "output",
                "blk.9.a",
                "blk.9.b",
                "blk.10.b"
            ]
        );
    }

    /// A header of a model of that shape in `quantize_mixes.txt`: architecture, layers, heads,
    /// heads of keys, experts, columns.
    fn shape<'a>(words: &[&'a str]) -> (Header<'a>, usize) {
        let mut header = Header::default();
        let architecture = words[0];
        let keys = [
            "block_count",
            "attention.head_count",
            "attention.head_count_kv",
            "expert_count",
        ];
        header.set("general.architecture", Value::Str(architecture.as_bytes()));
        for (key, number) in keys.into_iter().zip(&words[1..]) {
            let key: &'static str = format!("{architecture}.{key}").leak();
            header.set(key, Value::U32(number.parse().unwrap()));
        }
        (header, words[5].parse().unwrap())
    }

    #[test]
    fn mixes_are_those_of_llama_cpp() {
        let golden = include_str!("../../../tests/golden/quantize_mixes.txt");
        // The order of `TARGETS` in make_quantize.py.
        let targets: Vec<Target> =
            "F16 Q8_0 Q5_1 Q5_0 Q4_1 Q4_0 Q6_K Q5_K_M Q5_K_S Q4_K_M Q4_K_S Q3_K_L Q3_K_M Q3_K_S Q2_K IQ4_NL"
                .split(' ')
                .map(|name| name.parse().unwrap())
                .collect();
        let shapes: Vec<&str> = golden.split("\nshape ").skip(1).collect();
        assert_eq!((shapes.len(), targets.len()), (13, Target::ALL.len()));
        for text in shapes {
            let mut lines = text.lines();
            let first = lines.next().unwrap();
            let (mut header, cols) = shape(&first.split(' ').collect::<Vec<_>>());
            let tensors: Vec<(&str, Vec<u32>)> = lines
                .map(|line| {
                    let (name, numbers) = line.split_once(' ').unwrap();
                    (
                        name,
                        numbers.split(' ').map(|n| n.parse().unwrap()).collect(),
                    )
                })
                .collect();
            for (name, _) in &tensors {
                header.tensor(name, &[cols, 2], Format::F32).unwrap();
            }
            let mut body = header.write(Vec::new()).unwrap();
            tensors
                .iter()
                .for_each(|_| body.write(&vec![0; cols * 2 * 4]).unwrap());
            let (bytes, _) = body.finish().unwrap();
            let file = Gguf::parse(&bytes).unwrap();
            let mut infos: Vec<TensorInfo<'_>> = file.tensors().collect();
            infos.sort_by_key(order);
            for (t, target) in targets.iter().enumerate() {
                let mut chooser = Chooser::new(&file, *target);
                for info in &infos {
                    let format = chooser.format_of(info).unwrap_or(Format::F32);
                    let expected = &tensors
                        .iter()
                        .find(|(name, _)| *name == info.name())
                        .unwrap()
                        .1;
                    assert_eq!(
                        format.ggml_type(),
                        expected[t],
                        "{first}, {}, {}",
                        target.name(),
                        info.name()
                    );
                }
            }
        }
    }
}
