//! Cache policies: the choice of the tokens that a cache keeps.

use core::fmt;
use core::str::FromStr;

/// Cache policy with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Policy {
    /// Keeps all tokens, and stops at `capacity`.
    Dense {
        /// Largest number of tokens.
        capacity: usize,
    },
    /// Keeps the last `window` tokens; the output collapses once the first tokens leave. A
    /// baseline.
    Window {
        /// Number of kept tokens, including the newest.
        window: usize,
    },
    /// Computes the last `window` tokens again for every token; right, but slow. A baseline.
    Recompute {
        /// Number of computed tokens, including the newest.
        window: usize,
    },
    /// Keeps the first `sinks` and the last `window` tokens (StreamingLLM, Xiao et al., arXiv
    /// 2309.17453, section 3.2): runs without end at constant cost. The product's default.
    Sink {
        /// Number of first tokens, which are kept for ever.
        sinks: usize,
        /// Number of other tokens kept, including the newest.
        window: usize,
    },
}

impl Policy {
    /// Returns the policy of `kind` with these numbers; only [`PolicyKind::Sink`] has sinks.
    pub const fn new(kind: PolicyKind, sinks: usize, window: usize) -> Policy {
        match kind {
            PolicyKind::Dense => Policy::Dense { capacity: window },
            PolicyKind::Window => Policy::Window { window },
            PolicyKind::Recompute => Policy::Recompute { window },
            PolicyKind::Sink => Policy::Sink { sinks, window },
        }
    }

    /// Returns the policy without its numbers.
    pub const fn kind(self) -> PolicyKind {
        match self {
            Policy::Dense { .. } => PolicyKind::Dense,
            Policy::Window { .. } => PolicyKind::Window,
            Policy::Recompute { .. } => PolicyKind::Recompute,
            Policy::Sink { .. } => PolicyKind::Sink,
        }
    }

    /// Number of first tokens that are kept for ever.
    pub const fn sinks(self) -> usize {
        match self {
            Policy::Sink { sinks, .. } => sinks,
            _ => 0,
        }
    }

    /// Number of tokens that the ring holds besides the sinks.
    pub const fn window(self) -> usize {
        match self {
            Policy::Dense { capacity } => capacity,
            Policy::Window { window }
            | Policy::Recompute { window }
            | Policy::Sink { window, .. } => window,
        }
    }

    /// Number of a layer's sinks and number of its other slots: the policy's, unless the layer was
    /// trained with a window of `local` tokens. Such a layer keeps at most `local` tokens, and only
    /// those sinks for which a smaller window leaves room: in training it never saw the first
    /// tokens from further away.
    pub const fn slots(self, local: Option<usize>) -> (usize, usize) {
        let (sinks, window) = (self.sinks(), self.window());
        match local {
            Some(local) if window >= local => (0, local),
            Some(local) if sinks > local - window => (local - window, window),
            _ => (sinks, window),
        }
    }

    /// Returns the same policy with another window (for [`Policy::Dense`]: capacity).
    pub const fn with_window(self, window: usize) -> Policy {
        Policy::new(self.kind(), self.sinks(), window)
    }

    /// Name of the policy: `dense`, `window`, `recompute` or `sink`.
    pub const fn name(self) -> &'static str {
        self.kind().name()
    }
}

/// Cache policy without its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PolicyKind {
    /// First and last tokens; runs without end.
    #[default]
    Sink,
    /// Last tokens only: a baseline that collapses.
    Window,
    /// All tokens, until the cache is full.
    Dense,
    /// Last tokens, computed again for each token: a slow baseline.
    Recompute,
}

impl PolicyKind {
    /// All kinds.
    pub const ALL: [PolicyKind; 4] = [
        PolicyKind::Sink,
        PolicyKind::Window,
        PolicyKind::Dense,
        PolicyKind::Recompute,
    ];

    /// Name of the kind, as in a command line.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Sink => "sink",
            PolicyKind::Window => "window",
            PolicyKind::Dense => "dense",
            PolicyKind::Recompute => "recompute",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Error of parsing a name that is not in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// The known names, for the message.
    pub known: &'static str,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it must be one of {}", self.known)
    }
}

impl core::error::Error for UnknownName {}

impl FromStr for PolicyKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let kind = PolicyKind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.ok_or(UnknownName {
            known: "sink, window, dense, recompute",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn kinds_have_names_that_are_read_back() {
        for kind in PolicyKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(Policy::new(kind, 2, 5).kind(), kind);
        }
        assert!("sinks".parse::<PolicyKind>().is_err());
    }
}
