//! The small mathematics of a transformer: transcendental functions and rotary positions.

pub mod math;
pub mod rope;
