//! The choice of kernels for decoding: on some cores narrower ones read the weights faster.
//!
//! A group of a narrower instruction set has fewer rows, and so fewer streams of memory at a time.
//! Where that was measured to be faster, a product of few tokens goes to those kernels; the bits
//! are the same. `runtime-std/docs/performance.md` has the figures.

use super::{PANEL_TOKENS, product_q8};
use crate::kernels::isa::{Avx2, Avx512, Core, Sse41};
use crate::kernels::product::ProductQ8;
use crate::quant::Format;

/// Instruction set of the fastest decode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Best {
    Sse41,
    Avx2,
    AvxVnni,
    Avx512,
}

/// The fastest for weights of `format` on `core`, of all that AVX-512 includes.
fn best(core: Core, format: Format) -> Best {
    match (core, format) {
        (Core::Zen4, Format::Q8_0) => Best::Sse41,
        (Core::Zen4, Format::Q4_0 | Format::Q4_1 | Format::Q6_K) => Best::Avx2,
        (Core::Zen5, Format::Q8_0) => Best::AvxVnni,
        _ => Best::Avx512,
    }
}

fn is_decode(product: &ProductQ8<'_, '_>) -> bool {
    product.out.rows() < PANEL_TOKENS
}

/// Implements [`product_q8`] for AVX-512, with narrower kernels where they are faster.
pub(super) fn product_avx512<'p, 'c>(
    isa: Avx512,
    product: ProductQ8<'p, 'c>,
) -> Option<ProductQ8<'p, 'c>> {
    if is_decode(&product) {
        match best(isa.core(), product.weights.format()) {
            Best::Sse41 => return product_q8(isa.sse41(), product),
            Best::Avx2 => return product_q8(isa.avx2(), product),
            Best::AvxVnni => {
                if let Some(isa) = isa.avx_vnni() {
                    return product_q8(isa, product);
                }
            }
            Best::Avx512 => {}
        }
    }
    product_q8(isa, product)
}

/// Implements [`product_q8`] for AVX2, with narrower kernels where they are faster.
pub(super) fn product_avx2<'p, 'c>(
    isa: Avx2,
    product: ProductQ8<'p, 'c>,
) -> Option<ProductQ8<'p, 'c>> {
    let to_sse41 = is_decode(&product) && best(isa.core(), product.weights.format()) == Best::Sse41;
    if to_sse41 {
        let narrow: Sse41 = isa.sse41();
        return product_q8(narrow, product);
    }
    product_q8(isa, product)
}
