//! The only intrinsics of the crate: a folder for each architecture, with lanes and products for
//! each of its instruction sets.
//!
//! # What unsafe code relies on
//!
//! Safety comments cite these contracts by number.
//!
//! 1. **Features.** A token exists only where the processor has the features of its instruction set
//!    ([`crate::kernels::Isa`]). Code that needs features is reached only through a method of a
//!    token, or of a type that holds one. A function compiled with features names only those of its
//!    instruction set (a test reads the sources).
//! 2. **Weights.** [`Matrix::blocks`](crate::tensor::Matrix::blocks) gives whole rows. A kernel
//!    gets a group of rows and the number of blocks in a row, and checks that they fit one another.
//!    It reads a block by its row's pointer and its index in the row: `size_of` bytes of it are
//!    readable, at alignment 1. If the last group has fewer rows, copies of its last row fill it.
//! 3. **Activations.** A token has a block for every 32 columns of a row, which
//!    [`crate::kernels::matmul`] checks. A block is 44 bytes: the first 12 are scale, scaled sum
//!    and sums, the others are integers.
//! 4. **Outputs and panels.** They are slices, cut to the length that a kernel writes. A panel is
//!    carved from the scratch, which checks the length.
//! 5. **Arrays.** A reference to an array of fixed length is readable (or writable) for that
//!    length.
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
