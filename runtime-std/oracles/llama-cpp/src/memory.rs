//! Memory of this process as the operating system reports it.

use crate::Result;

/// Peak resident set and anonymous resident memory, in kB as in `/proc/self/status`.
pub struct Memory {
    /// `VmHWM`: the most pages ever resident, mapped weights included.
    pub peak_kb: u64,
    /// `RssAnon`: resident pages that no file backs, now.
    pub anon_kb: u64,
}

impl Memory {
    /// Reads this process's figures.
    pub fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name));
            let line = line.ok_or_else(|| format!("/proc/self/status has no {name}"))?;
            let number = line
                .split_whitespace()
                .nth(1)
                .ok_or_else(|| format!("{name} is empty"))?;
            Ok(number.parse()?)
        };
        Ok(Memory {
            peak_kb: field("VmHWM:")?,
            anon_kb: field("RssAnon:")?,
        })
    }
}
