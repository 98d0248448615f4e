//! The small mathematics of a transformer: transcendental functions, rotary positions, half
//! precision numbers.

pub(crate) mod float16;
pub mod math;
pub mod rope;
