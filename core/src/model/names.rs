//! Names of the tensors of a layer, after `blk.N.`.

pub(super) const QUERY: &str = "attn_q.weight";
pub(super) const KEY: &str = "attn_k.weight";
pub(super) const VALUE: &str = "attn_v.weight";
pub(super) const QKV: &str = "attn_qkv.weight";
pub(super) const SLIM_MAP: &str = "attn_slim_map.weight";
pub(super) const SLIM_CHANNELS: &str = "attn_slim_channels.weight";
pub(super) const SLIM_MEAN: &str = "attn_slim_mean.weight";
pub(super) const SLIM_OFFSET: &str = "attn_slim_offset.weight";
