//! The machine under a measurement: its processor, the clock and who governs it, what it held back,
//! and the energy that it has used, where Linux says so.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names and clocks of the machine; those that the system does not tell are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Machine {
    /// The board or computer, as its device tree names it.
    pub board: Option<String>,
    /// The processor; several kinds of cores with their numbers.
    pub processor: Option<String>,
    /// Governor of the first core's clock: `performance`, `schedutil`, ...
    pub governor: Option<String>,
    /// The clock of the first core now, in kHz.
    pub clock_khz: Option<u64>,
    /// Its highest clock, in kHz.
    pub highest_clock_khz: Option<u64>,
}

impl Machine {
    /// Asks the system.
    pub fn now() -> Machine {
        Machine::under(Path::new("/"))
    }

    fn under(root: &Path) -> Machine {
        let cores = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let clock = root.join("sys/devices/system/cpu/cpu0/cpufreq");
        Machine {
            board: word(&root.join("sys/firmware/devicetree/base/model")),
            processor: processor(&cores),
            governor: word(&clock.join("scaling_governor")),
            clock_khz: number(&clock.join("scaling_cur_freq")),
            highest_clock_khz: number(&clock.join("cpuinfo_max_freq")),
        }
    }
}

/// Record of a machine's being slowed down, by heat or for want of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// A number of times, which only grows.
    Times(u64),
    /// The Raspberry Pi's bits: the lowest four of now, those sixteen higher of since it started
    /// (`vcgencmd get_throttled`).
    Bits(u64),
}

impl Throttle {
    /// Asks the system; `None` where nothing counts it.
    pub fn now() -> Option<Throttle> {
        Throttle::under(Path::new("/"))
    }

    fn under(root: &Path) -> Option<Throttle> {
        let pi = root.join("sys/devices/platform/soc/soc:firmware/get_throttled");
        if let Some(bits) = word(&pi) {
            let bits = u64::from_str_radix(bits.trim_start_matches("0x"), 16).ok()?;
            return Some(Throttle::Bits(bits));
        }
        let folder = root.join("sys/devices/system/cpu/cpu0/thermal_throttle");
        let counts = ["core_throttle_count", "package_throttle_count"];
        let counts = counts.map(|name| number(&folder.join(name)));
        counts
            .iter()
            .any(Option::is_some)
            .then(|| Throttle::Times(counts.iter().flatten().sum()))
    }

    /// True if the machine was slowed down between `before` and this.
    pub fn since(self, before: Throttle) -> bool {
        let is_slow = matches!(self, Throttle::Bits(bits) if bits & 0xF != 0);
        is_slow || self != before
    }
}

/// Counters of energy (RAPL, "running average power limit"), a package each.
pub struct Energy(Vec<Counter>);

struct Counter {
    file: PathBuf,
    /// Microjoules at which it begins again at 0.
    range: u64,
    last: u64,
}

impl Energy {
    /// Finds those that this process may read; `None` if there are none.
    pub fn start() -> Option<Energy> {
        Energy::under(Path::new("/"))
    }

    fn under(root: &Path) -> Option<Energy> {
        let zones = fs::read_dir(root.join("sys/class/powercap")).ok()?;
        let mut counters = Vec::new();
        for zone in zones.flatten() {
            let name = zone.file_name();
            // `intel-rapl:0` is a package, on AMD's processors too; `intel-rapl:0:1` a part of it.
            let is_package = name
                .to_str()
                .and_then(|name| name.strip_prefix("intel-rapl:"))
                .is_some_and(|rest| !rest.contains(':'));
            let file = zone.path().join("energy_uj");
            if let (true, Some(last)) = (is_package, number(&file)) {
                counters.push(Counter {
                    range: number(&zone.path().join("max_energy_range_uj")).unwrap_or(u64::MAX),
                    file,
                    last,
                });
            }
        }
        (!counters.is_empty()).then_some(Energy(counters))
    }

    /// Joules since the start or the last call; `None` if a counter has gone.
    pub fn lap(&mut self) -> Option<f64> {
        let mut microjoules = 0;
        for counter in &mut self.0 {
            let now = number(&counter.file)?;
            microjoules += match now.checked_sub(counter.last) {
                Some(used) => used,
                None => counter.range.checked_sub(counter.last)?.checked_add(now)?,
            };
            counter.last = now;
        }
        Some(microjoules as f64 * 1e-6)
    }
}

/// The first line of a file, without the zero that ends it in a device tree.
fn word(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().next()?.trim_end_matches('\0').trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// The number in a file of the system's.
pub(super) fn number(file: &Path) -> Option<u64> {
    word(file)?.parse().ok()
}

/// The processor of a `/proc/cpuinfo`: by its name, or of Arm's cores by their numbers, which the
/// register MIDR holds (Arm Architecture Reference Manual, "MIDR_EL1").
fn processor(cpuinfo: &str) -> Option<String> {
    let fields = |name: &'static str| {
        cpuinfo.lines().filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    if let Some(name) = fields("model name").find(|name| !name.is_empty()) {
        return Some(name.to_owned());
    }
    let mut cores: BTreeMap<String, usize> = BTreeMap::new();
    for (by, part) in fields("CPU implementer").zip(fields("CPU part")) {
        let name = match (by, arm_core(part)) {
            ("0x41", Some(name)) => name.to_owned(),
            _ => format!("core {part} of {by}"),
        };
        *cores.entry(name).or_default() += 1;
    }
    let cores: Vec<String> = cores
        .iter()
        .map(|(name, count)| format!("{count} x {name}"))
        .collect();
    (!cores.is_empty()).then(|| cores.join(", "))
}

/// The name of a core by Arm, by its part number.
fn arm_core(part: &str) -> Option<&'static str> {
    Some(match part {
        "0xc07" => "Cortex-A7",
        "0xd03" => "Cortex-A53",
        "0xd04" => "Cortex-A35",
        "0xd05" => "Cortex-A55",
        "0xd07" => "Cortex-A57",
        "0xd08" => "Cortex-A72",
        "0xd09" => "Cortex-A73",
        "0xd0a" => "Cortex-A75",
        "0xd0b" => "Cortex-A76",
        "0xd0c" => "Neoverse-N1",
        "0xd0d" => "Cortex-A77",
        "0xd41" => "Cortex-A78",
        "0xd44" => "Cortex-X1",
        "0xd46" => "Cortex-A510",
        "0xd47" => "Cortex-A710",
        "0xd48" => "Cortex-X2",
        "0xd4d" => "Cortex-A715",
        "0xd4e" => "Cortex-X3",
        "0xd80" => "Cortex-A520",
        "0xd81" => "Cortex-A720",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn a_machine_that_says_nothing_is_no_fault() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Machine::under(root.path()), Machine::default());
        assert_eq!(Throttle::under(root.path()), None);
        assert!(Energy::under(root.path()).is_none());
    }

    #[test]
    fn a_raspberry_pi_is_known() {
        let root = tempfile::tempdir().unwrap();
        let core = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n";
        write(root.path(), "proc/cpuinfo", &core.repeat(4));
        write(
            root.path(),
            "sys/firmware/devicetree/base/model",
            "Raspberry Pi 5 Model B Rev 1.0\0",
        );
        let cpu = "sys/devices/system/cpu/cpu0/cpufreq";
        write(
            root.path(),
            &format!("{cpu}/scaling_governor"),
            "ondemand\n",
        );
        write(root.path(), &format!("{cpu}/scaling_cur_freq"), "1500000\n");
        write(root.path(), &format!("{cpu}/cpuinfo_max_freq"), "2400000\n");
        let bits = "sys/devices/platform/soc/soc:firmware/get_throttled";
        write(root.path(), bits, "50005\n");
        let expected = Machine {
            board: Some("Raspberry Pi 5 Model B Rev 1.0".into()),
            processor: Some("4 x Cortex-A76".into()),
            governor: Some("ondemand".into()),
            clock_khz: Some(1_500_000),
            highest_clock_khz: Some(2_400_000),
        };
        assert_eq!(Machine::under(root.path()), expected);
        let throttle = Throttle::under(root.path()).unwrap();
        assert_eq!(throttle, Throttle::Bits(0x5_0005));
        // It is slow now; then it was, but before.
        assert!(throttle.since(throttle));
        let past = Throttle::Bits(0x5_0000);
        assert!(!past.since(past) && past.since(Throttle::Bits(0)));
    }

    #[test]
    fn counts_of_slowing_down_grow() {
        let root = tempfile::tempdir().unwrap();
        let folder = "sys/devices/system/cpu/cpu0/thermal_throttle";
        write(root.path(), &format!("{folder}/core_throttle_count"), "3\n");
        let before = Throttle::under(root.path()).unwrap();
        assert!(!before.since(before));
        write(
            root.path(),
            &format!("{folder}/package_throttle_count"),
            "1\n",
        );
        assert!(Throttle::under(root.path()).unwrap().since(before));
    }

    #[test]
    fn cores_of_several_kinds_are_counted() {
        let core = |by: &str, part: &str| format!("CPU implementer : {by}\nCPU part : {part}\n");
        let text = [
            core("0x41", "0xd05").repeat(6),
            core("0x41", "0xd41").repeat(2),
            core("0x51", "0x800"),
        ];
        assert_eq!(
            processor(&text.concat()).unwrap(),
            "6 x Cortex-A55, 2 x Cortex-A78, 1 x core 0x800 of 0x51"
        );
        let x86 = "model name\t: Intel(R) N100\nmodel name\t: Intel(R) N100\n";
        assert_eq!(processor(x86).unwrap(), "Intel(R) N100");
        assert_eq!(processor("nothing"), None);
    }

    #[test]
    fn energy_is_of_packages_and_survives_the_counter_s_end() {
        let root = tempfile::tempdir().unwrap();
        let zone = |name: &str, energy: &str| {
            let folder = format!("sys/class/powercap/{name}");
            write(root.path(), &format!("{folder}/energy_uj"), energy);
            write(
                root.path(),
                &format!("{folder}/max_energy_range_uj"),
                "10000000",
            );
        };
        zone("intel-rapl:0", "9000000\n");
        zone("intel-rapl:0:0", "1\n");
        zone("dtpm", "1\n");
        let mut energy = Energy::under(root.path()).unwrap();
        assert_eq!(energy.lap(), Some(0.0));
        zone("intel-rapl:0", "9500000\n");
        zone("intel-rapl:0:0", "9000000\n");
        assert_eq!(energy.lap(), Some(0.5));
        zone("intel-rapl:0", "1500000\n");
        assert_eq!(energy.lap(), Some(2.0));
    }
}
