//! The buffers of an arena: one table of their names, element types, shapes, conditions and words.

use super::sizes::Sizes;
use crate::arena::{Carver, padded};
use crate::kernels::attend::LaneAngles;
use crate::quant::Q8Activation;
use crate::speech::mel::Span;

/// Turns each row into a buffer: its [`Part`], its words, its number of elements, its place in
/// [`Buffers`], and its carving. The order of the rows is the order of the arena.
macro_rules! parts {
    (
        ($sizes:ident)
        { $($part:ident $field:ident: [$type:ty; $count:expr], $words:literal;)* }
        apart: $last:ident [$last_type:ty; $last_count:expr], $last_words:literal;
    ) => {
        /// A buffer of the arena; the order is the one in the arena.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Part {
            $(#[doc = $words] $part,)*
            #[doc = $last_words]
            $last,
        }

        impl Part {
            /// Every part, in the order of the arena.
            pub const ALL: [Part; [$(Part::$part,)* Part::$last].len()] =
                [$(Part::$part,)* Part::$last];

            /// Words that name the use of the bytes.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Part::$part => $words,)*
                    Part::$last => $last_words,
                }
            }

            /// Number of elements.
            const fn count(self, $sizes: &Sizes<'_>) -> usize {
                match self {
                    $(Part::$part => $count,)*
                    Part::$last => $last_count,
                }
            }

            /// Number of bytes of an element.
            const fn each(self) -> usize {
                match self {
                    $(Part::$part => size_of::<$type>(),)*
                    Part::$last => size_of::<$last_type>(),
                }
            }

            /// Number of bytes of the part, with its padding; saturates.
            pub(super) const fn bytes(self, sizes: &Sizes<'_>) -> usize {
                padded(self.count(sizes), self.each())
            }
        }

        /// The engine's buffers: every part except the last.
        pub(crate) struct Buffers<'a> {
            $(#[doc = $words] pub(crate) $field: &'a mut [$type],)*
        }

        impl<'a> Buffers<'a> {
            /// Takes the buffers in order from an arena that was planned with `sizes`; `None` if
            /// the arena is too short or not aligned.
            pub(super) fn carve($sizes: &Sizes<'_>, arena: &'a mut [u8]) -> Option<Self> {
                let mut carver = Carver::new(arena)?;
                Some(Buffers {
                    $($field: carver.take($count)?,)*
                })
            }
        }
    };
}

parts! {
    (s)
    {
        Cache cache: [u8; s.layers.cache], "caches of all layers";
        ChunkCache chunk_cache: [u8; s.layers.chunk_cache], "cache of a prefill chunk";
        History history: [u32; s.recomputed()], "token history";
        Residual residual: [f32; s.rows(s.config.d_model)], "residual stream";
        Normed normed: [f32; s.rows(s.config.d_model)], "normed activations";
        // Attention is over when the feed-forward layer begins: two buffers share their bytes.
        Queries queries: [f32; s.queries()], "queries, then feed-forward up";
        SinkQueries sink_queries: [f32; s.sink_rows(s.config.query_columns())], "queries at sink positions";
        WideQueries wide_queries: [f32; s.rows(s.wide())], "queries as wide as inputs";
        Keys keys: [f32; s.rows(s.config.kv_columns())], "new keys";
        Values values: [f32; s.rows(s.config.kv_columns())], "new values";
        Channels channels: [f32; s.rows(s.layers.rank)], "new rank-correction channels";
        Attended attended: [f32; s.rows(s.config.query_columns())], "attention output";
        Hidden hidden: [f32; s.hidden()], "attention scores, then feed-forward gate";
        Activations activations: [Q8Activation; s.activations()], "int8 activations";
        KernelScratch kernel_scratch: [u8; s.by_worker(s.kernel_scratch(), 1)], "kernel scratch";
        Frequencies frequencies: [u64; s.by_kind(s.pairs())], "rotary frequencies";
        Angles angles: [[f32; 2]; s.by_kind(s.rows(s.pairs()))], "rotary angles";
        SinkAngles sink_angles: [[f32; 2]; s.by_kind(s.sink_rows(s.pairs()))], "rotary angles at sink positions";
        LaneAngles lane_angles: [LaneAngles; s.derived_pairs()], "rotary angles within a tile";
        TileAngles tile_angles: [[f32; 2]; s.tile_angles()], "rotary angles of tiles";
        Logits logits: [f32; s.options.logits_rows.saturating_mul(s.config.vocab)], "logits";
        Candidates candidates: [u32; s.candidates()], "sampler candidates";
        SourceRows source_rows: [f32; s.source_rows(s.config.d_model)], "encoder's residual stream";
        SourceCache source_cache: [u8; s.encoder.own], "keys and values of an encoder's layer";
        SourceScratch source_scratch: [u8; s.by_worker(s.encoder.whole, 1)], "attention of an encoder's rows";
        CrossCache cross_cache: [u8; s.encoder.cross], "cache of cross-attention";
        Features features: [f32; s.encoder.features], "log-mel features";
        MelTwiddles mel_twiddles: [f32; s.encoder.mel.twiddles], "factors of the spectrum's transform";
        MelSpans mel_spans: [Span; s.encoder.mel.spans], "bins of the mel bands";
        MelScratch mel_scratch: [f32; s.by_worker(s.encoder.mel.scratch, size_of::<f32>())], "spectrum";
        StemInput stem_input: [f32; s.rows(s.encoder.stem)], "frames beside each other";
        StemHidden stem_hidden: [f32; s.encoder.stem_hidden], "values between convolutions";
        // Last: before them it sets the buffers of a pass apart by distances at which prefill was
        // measured to be up to 4 % slower.
        CacheStarts cache_starts: [usize; s.config.layers], "places of the layers' caches";
    }
    apart: Tokenizer [u8; s.options.tokenizer_bytes], "tokenizer index";
}
