//! Signals that end a command: SIGINT (Ctrl-C), SIGTERM, and SIGHUP (the terminal has gone).
//!
//! One thread waits for them. While a command does not ask for anything else, the first signal ends
//! the process at once, whatever it waits for: what [`at_end`] knows is done, and then the signal
//! does what it would have done without us, so that a shell sees the status 130, 143 or 129, ends
//! its loop, and systemd sees a clean stop.
//!
//! A command that has something to finish [catches](Interrupt::catch) the signal: it finds a flag
//! set and has [`GRACE`] to end by itself. A second signal, or the end of that time, ends it as
//! above.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::failure::Failure;
use crate::generate::Cancel;

pub use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
#[cfg(unix)]
pub use watch::{end, watch};

/// The state of the process, which has one set of signal handlers.
struct State {
    /// The first signal, 0 before it.
    signal: AtomicI32,
    /// True if a command looks at `flag`.
    is_caught: AtomicBool,
    /// True if a caught SIGINT is not the end of the command.
    spares_ctrl_c: AtomicBool,
}

impl State {
    /// True if SIGINT is the command's to deal with.
    fn spares(&self, signal: i32) -> bool {
        signal == SIGINT && self.spares_ctrl_c.load(Ordering::SeqCst)
    }
}

static STATE: State = State {
    signal: AtomicI32::new(0),
    is_caught: AtomicBool::new(false),
    spares_ctrl_c: AtomicBool::new(false),
};

/// The flag that a signal sets while a command catches it.
fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// The first signal that has come.
pub fn signal() -> Option<i32> {
    Some(STATE.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// A command's wish to end by itself; given up when it is dropped.
pub struct Interrupt(());

/// Lets a write beyond the limit of a file's size fail, with a sentence, instead of ending the
/// program: a handler does, which programs started by this one do not inherit.
pub fn outlive_size_limits() {
    #[cfg(unix)]
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()) {
        tracing::info!(%error, "a limit of a file's size will end the program by a signal");
    }
}

impl Interrupt {
    /// Catches signals from now on.
    pub fn catch() -> Result<Interrupt, Failure> {
        watch()?;
        STATE.is_caught.store(true, Ordering::SeqCst);
        Ok(Interrupt(()))
    }

    /// Leaves Ctrl-C to the command, which [forgets](Interrupt::clear) it when it has done what was
    /// asked for. While it [waits](Interrupt::waiting) SIGINT ends it as any other signal does.
    pub fn spare_ctrl_c(&self) {
        STATE.spares_ctrl_c.store(true, Ordering::SeqCst);
    }

    /// Forgets a Ctrl-C that was answered, so that the next is a first one again.
    pub fn clear(&self) {
        flag().store(false, Ordering::SeqCst);
        let forgotten =
            STATE
                .signal
                .compare_exchange(SIGINT, 0, Ordering::SeqCst, Ordering::SeqCst);
        if forgotten.is_err_and(|signal| signal != 0) {
            // Another signal is not forgotten.
            flag().store(true, Ordering::SeqCst);
        }
    }

    /// Waits for something outside of the process: meanwhile a signal ends it at once.
    pub fn waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        STATE.is_caught.store(false, Ordering::SeqCst);
        // One that came just before; a Ctrl-C was for what the command did then.
        match signal() {
            Some(signal) if STATE.spares(signal) => self.clear(),
            Some(signal) => end(signal),
            None => {}
        }
        let result = wait();
        STATE.is_caught.store(true, Ordering::SeqCst);
        result
    }

    /// A handle that ends a text when a signal comes.
    pub fn cancel(&self) -> Cancel {
        Cancel::from(Arc::clone(flag()))
    }

    /// True if a signal has come.
    pub fn is_set(&self) -> bool {
        flag().load(Ordering::SeqCst)
    }

    /// The failure of a command that a signal has ended; `None` if none has come.
    pub fn failure(&self) -> Option<Failure> {
        signal().map(Failure::Interrupted)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        STATE.is_caught.store(false, Ordering::SeqCst);
        STATE.spares_ctrl_c.store(false, Ordering::SeqCst);
    }
}

#[cfg(unix)]
mod watch {
    //! The thread that waits for signals.

    use std::io;
    use std::sync::OnceLock;
    use std::thread;
    use std::time::{Duration, Instant};

    use signal_hook::consts::SIGHUP;
    use signal_hook::iterator::Signals;
    use signal_hook::low_level;

    use super::*;
    use crate::system::at_end;

    /// Time that a command has to end by itself.
    const GRACE: Duration = Duration::from_millis(700);
    /// Time between two looks at whether it has.
    const LOOK: Duration = Duration::from_millis(10);

    /// Starts to watch for signals, once in a process.
    ///
    /// # Errors
    /// The system's.
    pub fn watch() -> Result<(), Failure> {
        static STARTED: OnceLock<Result<(), i32>> = OnceLock::new();
        let start = || {
            let mut signals = vec![SIGINT, SIGTERM];
            // What `nohup` starts lives on without a terminal.
            if !is_ignored(SIGHUP) {
                signals.push(SIGHUP);
            }
            let signals = Signals::new(signals)?;
            let named = thread::Builder::new().name("signals".into());
            named.spawn(move || serve(signals)).map(|_| ())
        };
        let started = STARTED
            .get_or_init(|| start().map_err(|error: io::Error| error.raw_os_error().unwrap_or(0)));
        started.map_err(|code| Failure::System {
            what: "signal handlers".into(),
            error: io::Error::from_raw_os_error(code),
        })
    }

    /// True if the process was started with the signal ignored. Known on Linux alone.
    fn is_ignored(signal: i32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    fn serve(mut signals: Signals) {
        loop {
            for signal in signals.wait() {
                take(signal, &mut signals);
            }
        }
    }

    /// Takes a signal; returns if the command goes on.
    fn take(signal: i32, signals: &mut Signals) {
        let before = STATE
            .signal
            .compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
        // Set before the look at who catches it, as `waiting` does it the other way round: one of
        // the two sees the other.
        flag().store(true, Ordering::SeqCst);
        if before.is_err() || !STATE.is_caught.load(Ordering::SeqCst) {
            end(signal);
        }
        if STATE.spares(signal) {
            return;
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            thread::sleep(LOOK);
            if signals.pending().next().is_some() {
                break;
            }
        }
        end(signal);
    }

    /// Ends the process as the signal would.
    pub fn end(signal: i32) -> ! {
        at_end::do_all();
        // The first process of a container is not ended by a signal of its own.
        if std::process::id() != 1 {
            let _ = low_level::emulate_default_handler(signal);
        }
        low_level::exit(128 + signal)
    }
}

#[cfg(not(unix))]
pub fn watch() -> Result<(), Failure> {
    use signal_hook::flag;
    static STARTED: std::sync::Once = std::sync::Once::new();
    let mut result = Ok(());
    STARTED.call_once(|| {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first looks at what the second has set when the signal comes
            // again.
            result = flag::register_conditional_shutdown(signal, 128 + signal, flag().clone())
                .and_then(|_| flag::register(signal, flag().clone()))
                .map(|_| ());
        }
    });
    result.map_err(|error| Failure::System {
        what: "signal handlers".into(),
        error,
    })
}

#[cfg(not(unix))]
pub fn end(signal: i32) -> ! {
    crate::system::at_end::do_all();
    std::process::exit(128 + signal)
}
