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
