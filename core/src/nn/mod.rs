//! The small mathematics of a transformer: norm, activation, softmax, transcendental functions and rotary positions.

pub mod math;
pub mod rope;

pub use crate::kernels::vector::{Activation, Scaling, activate, norm, rotate, softmax};
