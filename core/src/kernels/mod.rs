//! Products of weight matrices and activations, on every instruction set.
//!
//! # Folders
//!
//! - `isa.rs`: the instruction sets, each with its features and its proof token; `dispatch.rs`: the
//!   choice of a kernel.
//! - `generic/`: norms, activations, softmax and attention ([`attend`]), written once over a vector
//!   of sixteen.
//! - `scalar/`: the readable reference, of lanes and of products.
//! - `arch/`: lanes and products of each instruction set; the only unsafe code. The head of its
//!   module lists the contracts that it relies on.
//!
//! To add an instruction set, add its rows in `isa.rs` and a folder in `arch`. To add a format, add
//! its file in [`crate::quant`] and its row in the table there; the compiler then asks for its
//! kernels. `docs/adding-an-instruction-set.md` and `docs/adding-a-format.md` have all steps.
//!
//! # Contract
//!
//! A kernel is a plain function over borrowed blocks and caller-owned scratch: no allocation, no
//! state, no threads. It computes any range of output rows for any number of tokens.
//!
//! **Quantised weights** meet activations quantised to int8 in blocks of 32 ([`Q8Activation`]). For
//! output row `r` and token `t`, with `b` running over the blocks of the row in order, from
//! `acc = 0` on:
//!
//! ```text
//! isum = Σ_i  wq[r][b][i] · xq[t][b][i]                                      exact, in integers
//! acc  = acc + (w.scale · x.scale) · (isum as f32)                           without minimum
//! acc  = acc + ((w.scale · x.scale) · (isum as f32) + w.min · x.scaled_sum)  with minimum
//! ```
//!
//! Every operation is rounded to f32 as written: one product, then one sum, never a fused
//! multiply-add. Since the block sum is exact and the order of the rest is fixed, **every
//! instruction set gives the same bits** for every format, for one token (decode) and for many
//! (prefill), whatever the range of rows. A SIMD kernel puts rows in lanes to keep that order; rows
//! that do not fill a vector go through the reference.
//!
//! The 8 parts of a super-block are such blocks of 32. Each of their two halves `h` of 16 has
//! integer factors ([`Part`]):
//!
//! ```text
//! isum = Σ_h factor[h] · Σ_i  wq[r][b][h][i] · xq[t][b][h][i]   exact, in integers
//! msum = Σ_h min_factor[h] · Σ_i  xq[t][b][h][i]                exact, in integers
//! acc  = acc + ((w.scale · x.scale) · (isum as f32) + w.min · (x.scale · (msum as f32)))
//! ```
//!
//! Formats without a minimum omit the second product. Where the factors are 1 (Q4_K, Q5_K) this is
//! the formula above, with `x.scaled_sum`. Of the formats with other factors Q6_K has the largest
//! sums: 32 products of at most 32 · 127 · 128 are 16,646,144, less than 2^24. Both sums are
//! therefore exact in f32, too, and a kernel may compute them from f32 products.
//!
//! **Float weights** (F32, F16, BF16), and all weights when activations are kept in f32, use
//! products in f32 with the fixed order of [`dot`]: sixteen partial sums (element `i` belongs to
//! sum `i mod 16`), product then sum, then a fold of halves.
//!
//! # Error budgets
//!
//! Errors are measured against the same product in f64 over the same (de)quantised operands,
//! relative to `Σ|w|·|x|` of the row: see [`budget`].

mod arch;
mod dispatch;
mod generic;
mod isa;
mod product;
mod scalar;

pub use dispatch::{matmul, quantize};
pub(crate) use generic::{
    Activate, Activation, Add, LeaveOut, Narrow, NormInPlace, NormThenAdd, SoftCap,
};
pub use generic::{Norm, Op, Rotate, Scaling, Softmax, attend};
#[cfg(all(target_arch = "arm", feature = "dsp"))]
pub use isa::Dsp;
#[cfg(all(target_arch = "arm", feature = "helium"))]
pub use isa::Helium;
pub use isa::Isa;
#[cfg(test)]
pub(crate) use isa::isas;
#[cfg(target_arch = "x86_64")]
pub use isa::{Avx2, Avx512, AvxVnni, Sse41};
#[cfg(target_arch = "aarch64")]
pub use isa::{Neon, NeonDotprod, NeonI8mm};
pub use product::{Input, Product, scratch_bytes};
pub use scalar::{dot, quantize_activations};

/// Named error budgets, relative to `Σ|w|·|x|` of an output; the suite holds every kernel to them.
pub mod budget {
    /// Quantised kernels against exact arithmetic on the quantised operands: rounding of at most 4
    /// f32 operations a block.
    pub const INT8_VS_EXACT: f64 = 4e-6;
    /// f32 kernels against exact arithmetic.
    pub const F32_VS_EXACT: f64 = 2e-6;
    /// Any instruction set against the scalar reference: the same bits.
    pub const ISA_VS_SCALAR: f32 = 0.0;
}

#[cfg(doc)]
use crate::quant::Part;
pub use crate::quant::Q8Activation;

#[cfg(test)]
mod tests;
