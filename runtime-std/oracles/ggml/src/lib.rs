//! ggml's f32 and f16 operators behind safe functions, as an oracle for brooklet-core's.
//!
//! `ggml-sys` 0.1.1 carries a ggml of mid 2023. It predates GGUF, so its quantised formats are not
//! ours (f32 scales, another nibble order), but its float operators are. Their own inaccuracies
//! bound what a comparison can show:
//!
//! - `rms_norm` has its epsilon, [`RMS_EPS`], compiled in;
//! - `rope` multiplies the angle from pair to pair in f32, base 10,000 compiled in;
//! - `soft_max` looks exponentials up in a table of f16;
//! - `mul_mat` with f16 weights rounds the activations to f16 and sums products in f32.

use ggml_sys::{ggml_context, ggml_tensor};
use half::f16;

/// The epsilon that this ggml adds to the mean square.
pub const RMS_EPS: f32 = 1e-6;

/// The base of this ggml's rotary frequencies.
pub const ROPE_BASE: f32 = 10_000.0;

/// Layout of rotary pairs in a head.
#[derive(Clone, Copy, Debug)]
pub enum Pairs {
    /// Elements 2i and 2i+1 (llama).
    Neighbours,
    /// Elements i and i + dims/2 (NeoX).
    Halves,
}

/// Divides each row of `x`, `[rows, columns]`, by the root of its mean square plus [`RMS_EPS`],
/// without a weight.
///
/// # Panics
///
/// If `x` is not a positive number of whole rows.
pub fn rms_norm(x: &[f32], columns: usize) -> Vec<f32> {
    evaluate(x.len(), |context| {
        let x = context.f32(x, &[columns]);
        // SAFETY: both pointers come from the live `context`.
        unsafe { ggml_sys::ggml_rms_norm(context.0, x) }
    })
}

/// Softmax of every row of `x`.
///
/// # Panics
///
/// If `x` is not a positive number of whole rows.
pub fn soft_max(x: &[f32], columns: usize) -> Vec<f32> {
    evaluate(x.len(), |context| {
        let x = context.f32(x, &[columns]);
        // SAFETY: both pointers come from the live `context`.
        unsafe { ggml_sys::ggml_soft_max(context.0, x) }
    })
}

/// Rotates the first `dims` elements of every head of `x`, `[tokens, heads, head_dim]`, the first
/// token standing at `first_position`.
///
/// # Panics
///
/// If `x` is not a positive number of whole tokens, or `dims` is odd or exceeds `head_dim`.
pub fn rope(
    x: &[f32],
    heads: usize,
    head_dim: usize,
    dims: usize,
    first_position: u16,
    pairs: Pairs,
) -> Vec<f32> {
    assert!(
        dims.is_multiple_of(2) && dims <= head_dim,
        "{dims} of {head_dim} elements cannot be rotated"
    );
    let mode = match pairs {
        Pairs::Neighbours => 0,
        Pairs::Halves => 2,
    };
    evaluate(2 * x.len(), |context| {
        let x = context.f32(x, &[head_dim, heads]);
        // SAFETY: both pointers come from the live `context`; `dims` was checked and fits a C int.
        unsafe { ggml_sys::ggml_rope(context.0, x, first_position.into(), dims as i32, mode) }
    })
}

/// `x · Wᵀ` for f32 weights `[rows, columns]` and activations `[tokens, columns]`:
/// `[tokens, rows]`.
///
/// # Panics
///
/// If either is not a positive number of whole rows.
pub fn mul_mat_f32(weights: &[f32], x: &[f32], columns: usize) -> Vec<f32> {
    evaluate(product_size(weights.len(), x.len(), columns), |context| {
        let (weights, x) = (context.f32(weights, &[columns]), context.f32(x, &[columns]));
        // SAFETY: all pointers come from the live `context`; both have `columns` elements in a row.
        unsafe { ggml_sys::ggml_mul_mat(context.0, weights, x) }
    })
}

/// Does the same as [`mul_mat_f32`] for f16 weights.
///
/// # Panics
///
/// If either is not a positive number of whole rows.
pub fn mul_mat_f16(weights: &[f16], x: &[f32], columns: usize) -> Vec<f32> {
    evaluate(product_size(weights.len(), x.len(), columns), |context| {
        let (weights, x) = (context.f16(weights, &[columns]), context.f32(x, &[columns]));
        // SAFETY: all pointers come from the live `context`; both have `columns` elements in a row.
        unsafe { ggml_sys::ggml_mul_mat(context.0, weights, x) }
    })
}

/// Elements of a product's operands and result together.
fn product_size(weights: usize, x: usize, columns: usize) -> usize {
    weights + x + (weights / columns) * (x / columns)
}

/// A live ggml context, that is, an arena for tensors.
struct Context(*mut ggml_context);

impl Context {
    /// A new f32 tensor whose innermost sizes are `inner`; the outermost follows from the length of
    /// `values`.
    fn f32(&self, values: &[f32], inner: &[usize]) -> *mut ggml_tensor {
        self.tensor(ggml_sys::ggml_type_GGML_TYPE_F32, values, inner)
    }

    /// A new f16 tensor, with the arguments of `f32`.
    fn f16(&self, values: &[f16], inner: &[usize]) -> *mut ggml_tensor {
        self.tensor(ggml_sys::ggml_type_GGML_TYPE_F16, values, inner)
    }

    fn tensor<T: Copy>(&self, kind: ggml_sys::ggml_type, values: &[T], inner: &[usize]) -> *mut ggml_tensor {
        let row: usize = inner.iter().product();
        assert!(
            !values.is_empty() && values.len().is_multiple_of(row),
            "{} elements are no whole rows of {row}",
            values.len()
        );
        let mut sizes: Vec<i64> = inner.iter().map(|&n| n as i64).collect();
        sizes.push((values.len() / row) as i64);
        // SAFETY: the context is live, `sizes` has as many elements as stated and is read during
        // the call only, and ggml returns a tensor whose data has room for the product of `sizes`
        // elements of `kind`, which is `values.len()` of `T`: the methods f32 and f16 pass only
        // their own kinds. Source and target do not overlap.
        unsafe {
            let tensor = ggml_sys::ggml_new_tensor(self.0, kind, sizes.len() as i32, sizes.as_ptr());
            std::ptr::copy_nonoverlapping(values.as_ptr(), (*tensor).data.cast::<T>(), values.len());
            tensor
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `ggml_init` and is freed once.
        unsafe { ggml_sys::ggml_free(self.0) }
    }
}

/// Builds a graph in a fresh context with room for `elements` f32 (operands and result), computes
/// it on one thread, and copies the result out.
fn evaluate(elements: usize, build: impl FnOnce(&Context) -> *mut ggml_tensor) -> Vec<f32> {
    // Twice the elements leave room for the result and the work buffer of f16 products; the rest
    // holds the headers of a few tensors and the graph objects.
    let params = ggml_sys::ggml_init_params {
        mem_size: 2 * 4 * elements + (1 << 20),
        mem_buffer: std::ptr::null_mut(),
        no_alloc: false,
    };
    // SAFETY: with a null buffer ggml allocates and owns `mem_size` bytes.
    let context = Context(unsafe { ggml_sys::ggml_init(params) });
    assert!(!context.0.is_null(), "ggml_init failed");
    let result = build(&context);
    // SAFETY: `result` is a tensor of the live context, which outlives the graph and the copy. The
    // f32 result is contiguous, and `ggml_nelements` counts its elements.
    unsafe {
        let mut graph = Box::new(ggml_sys::ggml_build_forward(result));
        graph.n_threads = 1;
        ggml_sys::ggml_graph_compute(context.0, &mut *graph);
        let count = ggml_sys::ggml_nelements(result) as usize;
        std::slice::from_raw_parts((*result).data.cast::<f32>(), count).to_vec()
    }
}
