//! The small mathematics of a transformer: transcendental functions, rotary positions, biases by
//! distance, half precision numbers.

pub mod alibi;
pub(crate) mod float16;
pub mod math;
pub mod rope;
