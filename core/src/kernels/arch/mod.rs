//! The only intrinsics of the crate: a folder for each architecture, with lanes and products for each of its instruction sets.
//!
//! # What unsafe code relies on
//!
//! Safety comments cite these by number.
//!
//! 1. **Features.** A token exists only where the processor has the features of its instruction set ([`crate::kernels::Isa`]). Code
//!    that needs features is reached through a method of a token, or of a type that holds one, and a function compiled with
//!    features names no others than those of its instruction set (a test reads the sources).
//! 2. **Weights.** [`Matrix::blocks`](crate::tensor::Matrix::blocks) gives whole rows. A kernel gets a group of rows and the number of
//!    blocks in a row, checks that they fit one another, and reads a block by its row's pointer and its index in the row: `size_of`
//!    bytes of it are readable, at alignment 1. Rows that a last group lacks are copies of its last row.
//! 3. **Activations.** A token has a block for every 32 columns of a row, checked in [`crate::kernels::matmul`]: 44 bytes, of which the
//!    first 12 are scale, scaled sum and sums, and the others integers.
//! 4. **Outputs and panels.** They are slices, cut to what a kernel writes; a panel is carved from the scratch, which checks the length.
//! 5. **Arrays.** A reference to an array of fixed length is readable (or writable) for that length.
#![allow(
    unsafe_code,
    reason = "intrinsics; each call is guarded by the instruction set's proof token"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;
