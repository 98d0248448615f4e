//! What the engine says while it starts: through `defmt` on boards, through `log` on hosts, to nobody by default.
//!
//! Nothing is logged per token.

/// One informational line, in whichever logger a feature chose; with both, `defmt` wins.
macro_rules! info {
    ($($argument:tt)*) => {{
        #[cfg(feature = "defmt")]
        defmt::info!($($argument)*);
        #[cfg(all(feature = "log", not(feature = "defmt")))]
        log::info!($($argument)*);
    }};
}
pub(crate) use info;
