//! Log messages of the engine's start: through `defmt` on boards, through `log` on hosts, nowhere
//! by default.
//!
//! Nothing is logged per token.

/// Logs one informational line with the logger that a feature selects; with both, `defmt` wins.
macro_rules! info {
    ($($argument:tt)*) => {{
        #[cfg(feature = "defmt")]
        defmt::info!($($argument)*);
        #[cfg(all(feature = "log", not(feature = "defmt")))]
        log::info!($($argument)*);
    }};
}
pub(crate) use info;
