//! The system's numbers about this process's memory.

use std::fs::File;
use std::io::Read;

/// Resident and swapped memory of this process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MemoryUse {
    /// Anonymous pages: what the process itself has allocated.
    pub anonymous_kib: u64,
    /// Pages of mapped files, which the system can drop and read again.
    pub file_kib: u64,
    /// Memory that was moved to swap.
    pub swap_kib: u64,
    /// Peak of the resident memory.
    pub peak_kib: u64,
}

/// Bytes of memory that programs can still take without swapping; `None` if the system has no
/// `/proc/meminfo` of Linux's form.
pub fn available_bytes() -> Option<u64> {
    kib_field(&std::fs::read("/proc/meminfo").ok()?, "MemAvailable:")?.checked_mul(1024)
}

/// The number of a line `name number kB`.
fn kib_field(status: &[u8], name: &str) -> Option<u64> {
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(name.as_bytes()))?;
    let number = str::from_utf8(line).ok()?.trim().strip_suffix("kB")?;
    number.trim().parse().ok()
}

impl MemoryUse {
    /// Returns the current values; `None` if the system has no `/proc/self/status` of Linux's form.
    /// Allocates nothing.
    pub fn now() -> Option<MemoryUse> {
        let mut buffer = [0; 4096];
        let mut file = File::open("/proc/self/status").ok()?;
        let mut len = 0;
        while len < buffer.len() {
            match file.read(&mut buffer[len..]).ok()? {
                0 => break,
                n => len += n,
            }
        }
        MemoryUse::parse(&buffer[..len])
    }

    fn parse(status: &[u8]) -> Option<MemoryUse> {
        let field = |name| kib_field(status, name);
        Some(MemoryUse {
            anonymous_kib: field("RssAnon:")?,
            file_kib: field("RssFile:")?,
            swap_kib: field("VmSwap:")?,
            peak_kib: field("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_of_a_status() {
        let status = b"Name:\tx\nVmHWM:\t    9000 kB\nRssAnon:\t     12 kB\nRssFile:\t 8000 kB\nVmSwap:\t       0 kB\n";
        let expected = MemoryUse {
            anonymous_kib: 12,
            file_kib: 8000,
            swap_kib: 0,
            peak_kib: 9000,
        };
        assert_eq!(MemoryUse::parse(status), Some(expected));
        assert_eq!(MemoryUse::parse(b"Name:\tx\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn anonymous_pages_are_counted() {
        let pages = |now: MemoryUse| now.anonymous_kib + now.swap_kib;
        // Other tests allocate and free beside this one, until they have ended.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let before = pages(MemoryUse::now().unwrap());
            let mut arena = crate::system::mmap::ArenaMemory::new(128 << 20).unwrap();
            arena.bytes().fill(1);
            let grown = pages(MemoryUse::now().unwrap()).saturating_sub(before);
            if (127 << 10..132 << 10).contains(&grown) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{grown} KiB");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
