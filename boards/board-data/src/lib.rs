//! Boards as data: reads `boards.toml` and generates the input of the linker and the firmware.
//!
//! The firmware's build script and the program that builds, boots and measures it both read the
//! file with this crate.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use brooklet_core::cache::{ElementType, LayoutChoice};
use serde::{Deserialize, Serialize};

/// Reason for a failure, in a sentence.
pub type Error = Box<dyn std::error::Error>;

/// A board and the firmware on it. Addresses and sizes are in bytes, clocks in Hz.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name of the processor core, for readers.
    pub core: String,
    /// rustc's target.
    pub target: String,
    /// rustc's `target-cpu`, which QEMU knows by the same name.
    pub cpu: String,
    /// QEMU's machine.
    pub machine: String,
    /// rustc's `opt-level`.
    pub opt_level: String,
    /// Features of the firmware's crate: the processor's instructions for the kernels.
    pub features: Vec<String>,
    /// The GGUF file, relative to `boards.toml`.
    pub model: String,
    /// First prompt, used before a line is typed.
    pub opening: String,
    /// First tokens kept for ever.
    pub sinks: usize,
    /// Tokens kept beside them.
    pub window: usize,
    /// Tokens of a prompt computed at once.
    pub chunk: usize,
    /// Element type of the cache.
    #[serde(with = "by_name")]
    pub cache: ElementType,
    /// Layout of the cache.
    #[serde(with = "by_name")]
    pub layout: LayoutChoice,
    /// Temperature of the sampler; 0 is greedy.
    pub temperature: f32,
    /// Start of the random sequence.
    pub seed: u64,
    /// Largest size of the arena.
    pub budget: usize,
    /// Address of flash.
    pub flash: u32,
    /// Size of flash for the image.
    pub flash_bytes: u32,
    /// Size of all flash of the machine.
    pub flash_there: u32,
    /// Address of RAM.
    pub ram: u32,
    /// Size of RAM.
    pub ram_bytes: u32,
    /// Size of the stack, which is a part of RAM.
    pub stack_bytes: u32,
    /// Ceiling of flash.
    pub max_flash: u64,
    /// Ceiling of RAM, the stack's room included.
    pub max_ram: u64,
    /// Ceiling of the stack that was used.
    pub max_stack: u32,
    /// The processor's clock.
    pub clock: u32,
    /// The UART of the story and of typed lines.
    pub uart: u32,
    /// The interrupt of a byte received there.
    pub uart_irq: i16,
    /// The UART that takes the log.
    pub log_uart: u32,
    /// The watchdog.
    pub watchdog: u32,
    /// The watchdog's clock.
    pub watchdog_clock: u32,
    /// Seconds from the last token to the reset.
    pub watchdog_seconds: u32,
    /// Address of the model if it is not a part of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_at: Option<u32>,
}

/// Core's types in the table, by the names that core gives them.
mod by_name {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let name = String::deserialize(deserializer)?;
        name.parse()
            .map_err(|e| D::Error::custom(format_args!("{name:?}: {e}")))
    }
}

impl Board {
    /// The board `name` of the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, makes no sense, or has no such board.
    pub fn read(path: &Path, name: &str) -> Result<Board, Error> {
        let mut all = Board::read_all(path)?;
        all.remove(name).ok_or_else(|| {
            let known: Vec<&String> = all.keys().collect();
            format!("{} has no board {name}; it has {known:?}", path.display()).into()
        })
    }

    /// All boards of the file at `path`, by name.
    ///
    /// # Errors
    /// If the file cannot be read or makes no sense.
    pub fn read_all(path: &Path) -> Result<BTreeMap<String, Board>, Error> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut tables: BTreeMap<String, toml::Table> = toml::from_str(&text)?;
        let defaults = tables.remove("defaults").unwrap_or_default();
        tables
            .into_iter()
            .map(|(name, own)| {
                let mut table = defaults.clone();
                table.extend(own);
                let board: Board = table.try_into().map_err(|e| format!("{name}: {e}"))?;
                board.check().map_err(|e| format!("{name}: {e}"))?;
                Ok((name, board))
            })
            .collect()
    }

    /// A file with this board alone.
    ///
    /// # Errors
    /// If a value cannot be written.
    pub fn to_file(&self, name: &str) -> Result<String, Error> {
        let tables = BTreeMap::from([(name, self)]);
        Ok(toml::to_string(&tables)?)
    }

    fn check(&self) -> Result<(), Error> {
        if self.stack_bytes >= self.ram_bytes || !self.stack_bytes.is_multiple_of(8) {
            return Err(format!(
                "a stack of {} bytes in {} bytes of RAM: it must be smaller, and a multiple of 8",
                self.stack_bytes, self.ram_bytes
            )
            .into());
        }
        Ok(())
    }

    /// The memory map, as cortex-m-rt wants it. The stack lies below everything else.
    pub fn memory_x(&self) -> String {
        let Board {
            flash,
            flash_bytes,
            ram,
            stack_bytes,
            ..
        } = *self;
        format!(
            "MEMORY\n{{\n  FLASH : ORIGIN = {flash:#010x}, LENGTH = {flash_bytes}\n  STACK : ORIGIN = {ram:#010x}, LENGTH = \
             {stack_bytes}\n  RAM : ORIGIN = {:#010x}, LENGTH = {}\n}}\n_stack_end = ORIGIN(STACK);\n_stack_start = ORIGIN(STACK) + \
             LENGTH(STACK);\n",
            ram + stack_bytes,
            self.ram_bytes - stack_bytes
        )
    }

    /// Constants for the firmware, as Rust.
    pub fn constants(&self) -> String {
        let mut out = String::new();
        let mut constant = |doc: &str, name: &str, kind: &str, value: &dyn std::fmt::Display| {
            writeln!(out, "/// {doc}.\npub const {name}: {kind} = {value};")
                .expect("strings take all");
        };
        constant("The processor's clock, in Hz", "CLOCK", "u32", &self.clock);
        constant("Bytes of flash", "FLASH_BYTES", "usize", &self.flash_bytes);
        constant(
            "Registers of the UART for the story",
            "UART",
            "usize",
            &self.uart,
        );
        constant(
            "Interrupt of a byte received there",
            "UART_IRQ",
            "i16",
            &self.uart_irq,
        );
        constant(
            "Registers of the UART that takes the log",
            "LOG_UART",
            "usize",
            &self.log_uart,
        );
        constant(
            "Registers of the watchdog",
            "WATCHDOG",
            "usize",
            &self.watchdog,
        );
        constant(
            "The watchdog's clock, in Hz",
            "WATCHDOG_CLOCK",
            "u32",
            &self.watchdog_clock,
        );
        constant(
            "Seconds from the last token to the reset",
            "WATCHDOG_SECONDS",
            "u32",
            &self.watchdog_seconds,
        );
        constant(
            "Bytes that the arena may take",
            "BUDGET",
            "usize",
            &self.budget,
        );
        constant(
            "First prompt",
            "OPENING",
            "&str",
            &format!("{:?}", self.opening),
        );
        constant(
            "Options of the plan and of the sampler",
            "SETUP",
            "brooklet_firmware::Setup",
            &self.setup(),
        );
        out
    }

    /// The `Setup` of the story, as Rust.
    fn setup(&self) -> String {
        format!(
            "brooklet_firmware::Setup {{ sinks: {}, window: {}, chunk: {}, cache_type: brooklet_core::cache::ElementType::{:?}, layout: \
             brooklet_core::cache::LayoutChoice::{:?}, temperature: {:?}, seed: {} }}",
            self.sinks,
            self.window,
            self.chunk,
            self.cache,
            self.layout,
            self.temperature,
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../cortex-m/boards.toml")
    }

    #[test]
    fn every_board_survives_being_written_alone() {
        let boards = Board::read_all(&table()).unwrap();
        assert!(!boards.is_empty());
        for (name, board) in boards {
            let text = board.to_file(&name).unwrap();
            let again: BTreeMap<String, Board> = toml::from_str(&text).unwrap();
            assert_eq!(again[&name], board);
        }
    }

    #[test]
    fn memories_do_not_overlap() {
        for (name, board) in Board::read_all(&table()).unwrap() {
            let map = board.memory_x();
            assert!(
                map.contains(&format!(
                    "LENGTH = {}\n",
                    board.ram_bytes - board.stack_bytes
                )),
                "{name}: {map}"
            );
            assert!(
                board.flash + board.flash_bytes <= board.ram
                    || board.ram + board.ram_bytes <= board.flash
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = Board::read(&table(), "mps9").unwrap_err().to_string();
        assert!(
            error.contains("no board mps9") && error.contains("mps2-an386"),
            "{error}"
        );
        let folder =
            std::env::temp_dir().join(format!("brooklet-board-data-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("boards.toml");
        fs::write(&file, "[a]\ncolour = 1\n").unwrap();
        let error = Board::read(&file, "a").unwrap_err().to_string();
        fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains("a: ") && error.contains("colour"), "{error}");
    }
}
