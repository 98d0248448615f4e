//! Cores of different sizes in one processor, as Linux knows them.

use std::path::Path;

use super::machine::number;

/// A core is a big one if it has this share of the capacity of the biggest.
const BIG: f64 = 0.6;

/// Number of big cores among those that this process may use; `None` if the system does not say
/// how big they are, which it does where they differ (`cpu_capacity`, Linux's documentation,
/// "sched-capacity").
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn big_cores() -> Option<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    big_under(Path::new("/"), |core| {
        core < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(core)
    })
}

/// Number of big cores: unknown here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn big_cores() -> Option<usize> {
    None
}

fn big_under(root: &Path, is_allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let capacity =
        |core| number(&root.join(format!("sys/devices/system/cpu/cpu{core}/cpu_capacity")));
    let capacities = (0..).map_while(|core| Some((core, capacity(core)?)));
    let allowed: Vec<u64> = capacities
        .filter(|(core, _)| is_allowed(*core))
        .map(|(_, capacity)| capacity)
        .collect();
    let biggest = allowed.iter().copied().max().filter(|most| *most > 0)?;
    let is_big = |capacity: &&u64| **capacity as f64 >= BIG * biggest as f64;
    Some(allowed.iter().filter(is_big).count())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cores(capacities: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (core, capacity) in capacities.iter().enumerate() {
            let folder = format!("sys/devices/system/cpu/cpu{core}");
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cpu_capacity"), format!("{capacity}\n")).unwrap();
        }
        root
    }

    #[test]
    fn big_cores_are_counted_among_those_that_may_be_used() {
        let phone = cores(&["250", "250", "250", "250", "760", "760", "760", "1024"]);
        assert_eq!(big_under(phone.path(), |_| true), Some(4));
        assert_eq!(big_under(phone.path(), |core| core < 4), Some(4));
        assert_eq!(big_under(phone.path(), |core| core > 5), Some(2));
        assert_eq!(big_under(phone.path(), |_| false), None);
    }

    #[test]
    fn where_nothing_is_said_nothing_is_known() {
        assert_eq!(big_under(cores(&[]).path(), |_| true), None);
        assert_eq!(big_under(cores(&["0", "x"]).path(), |_| true), None);
        assert_eq!(big_under(cores(&["1024"; 4]).path(), |_| true), Some(4));
    }
}
