//! Attention to the rows of an encoder, which every query sees: cross-attention, and the encoder's
//! own.

use super::attention::of_inputs;
use super::{At, optional, quantized};
use crate::attention::geometry::{Geometry, Tables};
use crate::attention::{Attend, Step, Values};
use crate::cache::{CacheMemory, LayerCache, Layout, Ring};
use crate::features::OfFamilies;
use crate::model::{CrossAttention, Linear};
use crate::nn::math;
use crate::plan::Buffers;

impl At<'_> {
    /// Computes `attended = attention(normed, e)` for the tokens that need an output: projects the
    /// queries, and attends to the encoder's output `e`.
    pub(super) fn cross_attention(
        &self,
        weights: &CrossAttention<'_>,
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) {
        let Some(shape) = self.pass.plan.cross_shape() else {
            unreachable!("a model with cross-attention has an encoder");
        };
        let values = match shape.layout {
            Layout::Kv | Layout::KR { .. } => Values::Cached,
            Layout::X => of_inputs(&weights.key, &weights.value),
        };
        let source = &mut caches.source;
        let len = source.len();
        self.project_queries(&weights.query, b);
        self.attend_to_source(values, (source.cross(self.index, &shape), len), b);
    }

    /// Projects the queries of the tokens that need an output from `normed`.
    pub(super) fn project_queries(&self, query: &Linear<'_>, b: &mut Buffers<'_>) {
        let (pass, compute, config) = (self.pass, self.pass.compute, self.config());
        let d = config.d_model;
        let queries = &mut b.queries[pass.rows(self.wanted, config.query_columns())];
        let input = quantized(&b.normed[pass.rows(self.wanted, d)], b.activations, d);
        compute.linear(input, [(&query.weight, &mut *queries)], b.kernel_scratch);
        compute.add_bias(queries, optional(query.bias));
        if !math::all_finite(queries) {
            b.residual[self.wanted * d] = f32::NAN;
        }
    }

    /// Attends with the queries of the tokens that need an output to all `len` rows of `source`.
    pub(super) fn attend_to_source(
        &self,
        values: Values<'_>,
        (source, len): (LayerCache<'_>, usize),
        b: &mut Buffers<'_>,
    ) {
        let (pass, compute, config) = (self.pass, self.pass.compute, self.config());
        let shape = config.shape_of_source();
        let (tokens, d, columns) = (pass.tokens, shape.d_model, shape.query_columns());
        let ring = Ring::whole(len);
        let unrotated = Tables {
            frequencies: &[],
            lanes: &[],
            pairs: shape.rope_pairs,
        };
        let geometry = Geometry::new(&ring, 0, unrotated, &mut []);
        let wide = match values {
            Values::OfInputs { .. } => tokens * shape.heads * d,
            Values::Cached | Values::OfKeys(_) => 0,
        };
        let attend = Attend {
            compute,
            shape: &shape,
            ring: &ring,
            geometry: Some(&geometry),
            values,
        };
        attend.to_source(
            source,
            &mut Step {
                queries: &mut b.queries[..tokens * columns],
                sink_queries: &mut [],
                wide_queries: &mut b.wide_queries[..wide],
                rows: &mut [],
                beside: &[],
                sink_values: &[],
                attended: &mut b.attended[..tokens * columns],
                scratch: &mut b.hidden[..pass.plan.scores()],
                kernel_scratch: b.kernel_scratch,
                scale: 1.0 / math::sqrt(config.query_scale_of as f32),
                score_cap: config.score_cap,
                alibi: OfFamilies::NONE,
                least_weight: pass.plan.options().least_weight(),
                angles: &[],
                sink_angles: &[],
                wanted: self.wanted,
                probe: &mut [],
            },
        );
    }
}
