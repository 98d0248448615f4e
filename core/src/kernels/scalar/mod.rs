//! The readable reference: the contract of [`super`] in plain Rust.

mod lanes;
mod product;
mod quantize;

pub use product::dot;
pub(crate) use product::fold;
#[cfg(target_arch = "x86_64")]
pub(super) use product::{dot_q8, dot_super};
pub(super) use product::{product_f32, product_q8};
#[cfg(all(target_arch = "arm", feature = "dsp"))]
pub(super) use quantize::largest_magnitude;
pub use quantize::quantize_activations;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "arm", feature = "dsp")
))]
pub(super) use quantize::{inverse_scale, set_scale};
