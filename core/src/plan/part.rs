//! The buffers of an arena.

/// A buffer of the arena, in the order in which they lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "`name` says what each is for")]
pub enum Part {
    Cache,
    ChunkCache,
    History,
    Residual,
    Normed,
    Queries,
    SinkQueries,
    Keys,
    Values,
    Channels,
    Attended,
    Gate,
    Up,
    Activations,
    Scores,
    KernelScratch,
    Frequencies,
    Angles,
    SinkAngles,
    LaneAngles,
    TileAngles,
    Logits,
    Candidates,
    Tokenizer,
}

impl Part {
    /// Every part, in the order of the arena.
    pub const ALL: [Part; 24] = [
        Part::Cache,
        Part::ChunkCache,
        Part::History,
        Part::Residual,
        Part::Normed,
        Part::Queries,
        Part::SinkQueries,
        Part::Keys,
        Part::Values,
        Part::Channels,
        Part::Attended,
        Part::Gate,
        Part::Up,
        Part::Activations,
        Part::Scores,
        Part::KernelScratch,
        Part::Frequencies,
        Part::Angles,
        Part::SinkAngles,
        Part::LaneAngles,
        Part::TileAngles,
        Part::Logits,
        Part::Candidates,
        Part::Tokenizer,
    ];

    /// What the bytes are for.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Cache => "cache: keys and values",
            Part::ChunkCache => "keys and values of a prefill chunk",
            Part::History => "token history",
            Part::Residual => "residual stream",
            Part::Normed => "normed activations",
            Part::Queries => "queries",
            Part::SinkQueries => "queries at sink positions",
            Part::Keys => "new keys",
            Part::Values => "new values",
            Part::Channels => "new further channels",
            Part::Attended => "attention output",
            Part::Gate => "feed-forward gate",
            Part::Up => "feed-forward up",
            Part::Activations => "int8 activations",
            Part::Scores => "attention scores",
            Part::KernelScratch => "kernel scratch",
            Part::Frequencies => "rotary frequencies",
            Part::Angles => "rotary angles",
            Part::SinkAngles => "rotary angles at sink positions",
            Part::LaneAngles => "rotary angles within a tile",
            Part::TileAngles => "rotary angles of tiles",
            Part::Logits => "logits",
            Part::Candidates => "sampler candidates",
            Part::Tokenizer => "tokenizer index",
        }
    }
}
