//! Which tensors are converted, and to what.
//!
//! The rules are those of llama.cpp's `llama-quantize` (`src/llama-quant.cpp`) without `--pure` and without an importance matrix. One thing
//! differs: where it writes Q6_K, which is the output matrix if its rows are a multiple of 256, Q8_0 is written here.

use brooklet_core::gguf::{Gguf, TensorInfo};
use brooklet_core::quant::Format;

/// Matrices whose names hold one of these keep their format: they are small, or they are added instead of multiplied.
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

/// What the rules need to know of the whole file.
pub(super) struct Facts {
    /// The embeddings are the output matrix too.
    tied: bool,
    /// Mixtral and its like: their attention is small beside their experts.
    eight_experts: bool,
}

impl Facts {
    pub(super) fn of(file: &Gguf<'_>) -> Facts {
        let architecture = file.get("general.architecture").and_then(|value| value.as_str());
        let experts = architecture.and_then(|name| file.get_scoped(name, "expert_count"));
        Facts {
            tied: file.tensor("output.weight").is_none(),
            eight_experts: experts.and_then(|value| value.as_u64()) == Some(8),
        }
    }

    /// The format that a tensor gets in a file of format `target`; `None` if it keeps its own.
    pub(super) fn format_of(&self, tensor: &TensorInfo<'_>, target: Format) -> Option<Format> {
        if !is_weight_matrix(tensor) {
            return None;
        }
        if !target.is_quantized() {
            return Some(target);
        }
        let format = if self.wants_more_bits(tensor.name()) {
            Format::Q8_0
        } else {
            target
        };
        let whole = tensor.cols().is_multiple_of(format.block_len());
        Some(if whole { format } else { Format::F16 })
    }

    fn wants_more_bits(&self, name: &str) -> bool {
        let embeddings = ["token_embd.weight", "per_layer_token_embd.weight"];
        let attention = [
            "attn_qkv.weight",
            "attn_kv_b.weight",
            "attn_v.weight",
            "attn_k.weight",
        ];
        name == "output.weight"
            || self.tied && embeddings.contains(&name)
            || self.eight_experts && attention.iter().any(|part| name.contains(part))
    }
}

/// Whether a tensor is a matrix (or a stack of them) that activations are multiplied with.
fn is_weight_matrix(tensor: &TensorInfo<'_>) -> bool {
    let name = tensor.name();
    tensor.rows() > 1 && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}

/// The order of the tensors in the new file: those of no layer first, then layer by layer, each by name.
pub(super) fn order<'a>(tensor: &TensorInfo<'a>) -> (Option<u32>, &'a str) {
    let digits = tensor.name().strip_prefix("blk.").map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        &rest[..end]
    });
    (digits.and_then(|digits| digits.parse().ok()), tensor.name())
}

#[cfg(test)]
mod tests {
    use brooklet_core::gguf::Value;

    use super::*;
    use crate::gguf_writer::Header;

    /// The chosen formats of these tensors of f32, in the new file's order.
    fn chosen(
        metadata: &[(&'static str, Value<'static>)],
        tensors: &[(&'static str, &[usize])],
        target: Format,
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
            body.write(&vec![0; dims.iter().product::<usize>() * 4]).unwrap();
        }
        let (bytes, _) = body.finish().unwrap();
        let file = Gguf::parse(&bytes).unwrap();
        let facts = Facts::of(&file);
        let mut tensors: Vec<TensorInfo<'_>> = file.tensors().collect();
        tensors.sort_by_key(order);
        let chosen = |tensor: &TensorInfo<'_>| (tensor.name().to_owned(), facts.format_of(tensor, target));
        tensors.iter().map(chosen).collect()
    }

    fn formats(tensors: &[(&'static str, &[usize])], target: Format) -> Vec<Option<Format>> {
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
        for target in [Format::Q4_0, Format::F16] {
            let yes = Some(target);
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
            formats(&tied, Format::Q4_0),
            [Some(Format::Q8_0), Some(Format::Q4_0)]
        );
        assert_eq!(formats(&tied, Format::F16), [Some(Format::F16); 2]);
        let untied: [(&str, &[usize]); 2] = [("output.weight", &[32, 2]), ("token_embd.weight", &[32, 2])];
        assert_eq!(
            formats(&untied, Format::Q5_0),
            [Some(Format::Q8_0), Some(Format::Q5_0)]
        );
    }

    #[test]
    fn rows_that_are_not_whole_blocks_become_f16() {
        let tensors: [(&str, &[usize]); 2] = [("output.weight", &[33, 2]), ("x.weight", &[172, 2])];
        assert_eq!(formats(&tensors, Format::Q8_0), [Some(Format::F16); 2]);
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
            let chosen = chosen(&metadata, &tensors, Format::Q4_1);
            let formats: Vec<_> = chosen.into_iter().map(|(_, format)| format.unwrap()).collect();
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
        let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (*name, &[1usize][..])).collect();
        let order: Vec<String> = chosen(&[], &tensors, Format::F16)
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
}
