//! Names of tensors: those of llama.cpp's files, by which the blocks ask, and what other
//! conventions call the same tensor.

use crate::const_fn::same;

pub(super) const QUERY: &str = "attn_q.weight";
pub(super) const KEY: &str = "attn_k.weight";
pub(super) const VALUE: &str = "attn_v.weight";
pub(super) const QKV: &str = "attn_qkv.weight";
pub(super) const SLIM_MAP: &str = "attn_slim_map.weight";
pub(super) const SLIM_CHANNELS: &str = "attn_slim_channels.weight";
pub(super) const SLIM_MEAN: &str = "attn_slim_mean.weight";
pub(super) const SLIM_OFFSET: &str = "attn_slim_offset.weight";
pub(super) const EMBEDDING: &str = "token_embd.weight";

/// Convention by which a file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Naming {
    /// llama.cpp's: one stack of layers, `blk.3.attn_q.weight`.
    Blocks,
    /// transcribe.cpp's: two stacks, `enc.blocks.3.attn.q.weight` and
    /// `dec.blocks.3.self_attn.q.weight`.
    Speech,
}

/// A stack of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    /// The layers that predict tokens, in most models the only ones.
    Decoder,
    /// The layers whose output the decoder's cross-attention reads.
    Encoder,
}

impl Naming {
    /// Beginning of the names of a stack's tensors, before the number of the layer.
    pub(super) const fn prefix(self, stack: Stack) -> &'static str {
        match (self, stack) {
            (Naming::Blocks, _) => "blk.",
            (Naming::Speech, Stack::Encoder) => "enc.blocks.",
            (Naming::Speech, Stack::Decoder) => "dec.blocks.",
        }
    }

    /// Name of the tensor that llama.cpp's files call `name`, after the number of a layer if it
    /// belongs to one.
    pub(super) const fn of(self, stack: Stack, name: &'static str) -> &'static str {
        let table = match (self, stack) {
            (Naming::Blocks, _) => return name,
            (Naming::Speech, Stack::Encoder) => ENCODER,
            (Naming::Speech, Stack::Decoder) => DECODER,
        };
        match (look_up(FEED_FORWARD, name), look_up(table, name)) {
            (Some(other), _) | (None, Some(other)) => other,
            (None, None) => name,
        }
    }
}

/// Finds the other name of `name`.
const fn look_up(table: &[[&'static str; 2]], name: &str) -> Option<&'static str> {
    let mut i = 0;
    while i < table.len() {
        let [known, other] = table[i];
        if same(known.as_bytes(), name.as_bytes()) {
            return Some(other);
        }
        i += 1;
    }
    None
}

/// Names in either stack.
const FEED_FORWARD: &[[&str; 2]] = &[
    ["ffn_norm.weight", "norm_ffn.weight"],
    ["ffn_norm.bias", "norm_ffn.bias"],
    ["ffn_up.weight", "ffn.fc1.weight"],
    ["ffn_up.bias", "ffn.fc1.bias"],
    ["ffn_down.weight", "ffn.fc2.weight"],
    ["ffn_down.bias", "ffn.fc2.bias"],
];

const ENCODER: &[[&str; 2]] = &[
    ["attn_norm.weight", "norm_attn.weight"],
    ["attn_norm.bias", "norm_attn.bias"],
    [QUERY, "attn.q.weight"],
    ["attn_q.bias", "attn.q.bias"],
    [KEY, "attn.k.weight"],
    ["attn_k.bias", "attn.k.bias"],
    [VALUE, "attn.v.weight"],
    ["attn_v.bias", "attn.v.bias"],
    ["attn_output.weight", "attn.out.weight"],
    ["attn_output.bias", "attn.out.bias"],
    ["position_embd.weight", "enc.pos_emb.weight"],
    ["output_norm.weight", "enc.final_norm.weight"],
    ["output_norm.bias", "enc.final_norm.bias"],
];

const DECODER: &[[&str; 2]] = &[
    ["attn_norm.weight", "norm_self.weight"],
    ["attn_norm.bias", "norm_self.bias"],
    [QUERY, "self_attn.q.weight"],
    ["attn_q.bias", "self_attn.q.bias"],
    [KEY, "self_attn.k.weight"],
    ["attn_k.bias", "self_attn.k.bias"],
    [VALUE, "self_attn.v.weight"],
    ["attn_v.bias", "self_attn.v.bias"],
    ["attn_output.weight", "self_attn.out.weight"],
    ["attn_output.bias", "self_attn.out.bias"],
    ["cross_attn_norm.weight", "norm_cross.weight"],
    ["cross_attn_norm.bias", "norm_cross.bias"],
    ["cross_attn_q.weight", "cross_attn.q.weight"],
    ["cross_attn_q.bias", "cross_attn.q.bias"],
    ["cross_attn_k.weight", "cross_attn.k.weight"],
    ["cross_attn_k.bias", "cross_attn.k.bias"],
    ["cross_attn_v.weight", "cross_attn.v.weight"],
    ["cross_attn_v.bias", "cross_attn.v.bias"],
    ["cross_attn_o.weight", "cross_attn.out.weight"],
    ["cross_attn_o.bias", "cross_attn.out.bias"],
    [EMBEDDING, "dec.token_embd.weight"],
    ["position_embd.weight", "dec.pos_emb.weight"],
    ["output_norm.weight", "dec.final_norm.weight"],
    ["output_norm.bias", "dec.final_norm.bias"],
    ["output.weight", "dec.lm_head.weight"],
];
