//! Ctrl-C: the first ends a run cleanly, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::failure::Failure;
use crate::generate::Cancel;

/// Exit code after the second signal: the shells' for an interrupted program.
const KILLED: i32 = 130;

/// The flag that Ctrl-C sets, or a request to terminate.
pub struct Interrupt(Arc<AtomicBool>);

/// Lets a write beyond the limit of a file's size fail, with a sentence, instead of ending the
/// program: a handler does, which programs started by this one do not inherit.
pub fn outlive_size_limits() {
    #[cfg(unix)]
    if let Err(error) = flag::register(signal_hook::consts::SIGXFSZ, Arc::default()) {
        tracing::info!(%error, "a limit of a file's size will end the program by a signal");
    }
}

impl Interrupt {
    /// Installs the handlers: from now on the first signal only sets the flag.
    pub fn catch() -> Result<Interrupt, Failure> {
        let noted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first looks at what the second has set when the signal comes
            // again.
            flag::register_conditional_shutdown(signal, KILLED, Arc::clone(&noted))
                .and_then(|_| flag::register(signal, Arc::clone(&noted)))
                .map_err(|error| Failure::System {
                    what: "a signal handler".into(),
                    error,
                })?;
        }
        Ok(Interrupt(noted))
    }

    /// Forgets the signal that came, so that the next is a first one again.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// A handle that ends a text when a signal comes.
    pub fn cancel(&self) -> Cancel {
        Cancel::from(Arc::clone(&self.0))
    }

    /// True if a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
