//! The only intrinsics of the crate: a folder for each architecture, with lanes and products for each of its instruction sets.
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
