//! The Raspberry Pi 3 without an operating system: builds its firmware, boots it in both possible
//! ways and compares.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use brooklet_firmware::LINE;

use crate::elf::{self, Sizes};
use crate::firmware::executable;
use crate::reference::Reference;
use crate::{Error, TINY_K, boards_folder};

/// The firmware's own.
#[path = "../../../boards/raspi3/src/setup.rs"]
mod setup;
use setup::{OPENING, SETUP};

const TARGET: &str = "aarch64-unknown-none";

/// Tokens that are compared.
const TOKENS: usize = 200;

/// A typed line, and the number of tokens compared after it.
const PROMPT: &str = "The dragon was 7 years old.";
const TYPED_TOKENS: usize = 32;

/// Time limit of an image.
const DEADLINE: Duration = Duration::from_secs(120);

/// The firmware must give the host's tokens and survive any typed bytes, whether QEMU starts the
/// ELF file (four cores, EL3) or `kernel8.img` (as the board's own firmware does, EL2). The image
/// is left beside the ELF file.
///
/// # Errors
/// If it does not, or cannot be built or started.
pub fn check() -> Result<(), Error> {
    let model = boards_folder().join("raspi3").join(TINY_K);
    let opening = Reference::run(&model, SETUP, OPENING, TOKENS)?;
    let typed = Reference::run(&model, SETUP, PROMPT, TYPED_TOKENS)?;
    let elf = build(&model)?;
    let sizes = Sizes::of(&elf)?;
    let planned = opening.plan.bytes();
    if sizes.arena != planned as u64 {
        return Err(format!(
            "the arena has {} bytes, the host plans {planned}",
            sizes.arena
        )
        .into());
    }
    let kernel = elf.with_file_name("kernel8.img");
    fs::write(&kernel, elf::flat(&elf)?)?;
    for image in [&elf, &kernel] {
        compare(image, &opening, &typed)?;
    }
    say!(
        "{}: {} bytes (the model {}); RAM {} bytes (the arena {}) with the stack",
        kernel.display(),
        fs::metadata(&kernel)?.len(),
        fs::metadata(&model)?.len(),
        sizes.ram,
        sizes.arena
    );
    Ok(())
}

/// Boots `image`: the opening's story, then noise and a line too long, then the story of a line.
fn compare(image: &Path, opening: &Reference, typed: &Reference) -> Result<(), Error> {
    let started = Instant::now();
    let mut session = Session::start(image)?;
    session.text(|text| match text.get(..opening.text.len()) {
        Some(said) if said == opening.text => Ok(Some(())),
        Some(said) => Err(format!(
            "board and host differ\nboard:\n{said}\nhost:\n{}",
            opening.text
        )
        .into()),
        None => Ok(None),
    })?;
    let figures = session.logged(" us the last, stack ")?;

    let noise: Vec<u8> = (0..32)
        .chain([127, 128, 0xC3, 255])
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    session.type_in(&noise)?;
    session.type_in(&[b'x'; 300])?;
    session.type_in(b"\n")?;
    session.logged(&format!("a line longer than {LINE} bytes is thrown away"))?;
    session.type_in(format!("{PROMPT}\n").as_bytes())?;
    let said_first = format!("\n\n{PROMPT}");
    let expected = &typed.text[PROMPT.len()..];
    session.text(|text| match text.split_once(&said_first) {
        Some((_, said)) if said.starts_with(expected) => Ok(Some(())),
        Some((_, said)) if said.len() >= expected.len() => {
            Err(format!("{PROMPT:?} goes on with {said:?}, on the host with {expected:?}").into())
        }
        _ => Ok(None),
    })?;
    let prompts = so_far(&session.log).matches("a prompt of ").count();
    if prompts != 2 {
        return Err(
            format!("{prompts} stories began instead of the opening and the typed one").into(),
        );
    }
    say!(
        "{} on raspi3b (Cortex-A53), {:.1} s: {TOKENS} tokens and {TYPED_TOKENS} after a prompt as on the host; noise and a line \
         too long changed nothing\n  {}; {figures}",
        image.file_name().unwrap_or_default().display(),
        started.elapsed().as_secs_f32(),
        session.logged("neon kernels")?
    );
    Ok(())
}

/// A board that runs.
struct Session {
    child: Child,
    typing: ChildStdin,
    text: Heard,
    log: Heard,
    end: Instant,
}

/// Output of a serial port.
type Heard = Arc<Mutex<Vec<u8>>>;

impl Session {
    fn start(image: &Path) -> Result<Session, Error> {
        let mut child = Command::new("qemu-system-aarch64")
            .args([
                "-M",
                "raspi3b",
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
            ])
            .args(["-serial", "stdio", "-serial", "file:/dev/stderr", "-kernel"])
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start qemu-system-aarch64: {e}"))?;
        let (Some(typing), Some(text), Some(log)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("no pipes to the emulator".into());
        };
        Ok(Session {
            child,
            typing,
            text: listen(text),
            log: listen(log),
            end: Instant::now() + DEADLINE,
        })
    }

    fn type_in(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.typing.write_all(bytes)?;
        Ok(self.typing.flush()?)
    }

    /// Waits until `found` finds something in the text, whose line ends are line feeds alone.
    fn text(&mut self, found: impl Fn(&str) -> Result<Option<()>, Error>) -> Result<(), Error> {
        let text = Arc::clone(&self.text);
        self.wait(|| found(&so_far(&text)))
    }

    /// Waits for a line of the log with `words` in it; the first.
    fn logged(&mut self, words: &str) -> Result<String, Error> {
        let log = Arc::clone(&self.log);
        self.wait(|| {
            let log = so_far(&log);
            let mut lines = log
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'));
            Ok(lines.find(|line| line.contains(words)).map(str::to_owned))
        })
        .map_err(|e| format!("waiting for {words:?}: {e}").into())
    }

    fn wait<T>(&mut self, found: impl Fn() -> Result<Option<T>, Error>) -> Result<T, Error> {
        loop {
            // Checked before the text is read again, so that the last look sees all of its output.
            let ended = self.child.try_wait()?.is_some();
            if let Some(found) = found()? {
                return Ok(found);
            }
            if ended || Instant::now() >= self.end {
                let why = if ended { "it ended" } else { "too slow" };
                let (text, log) = (so_far(&self.text), so_far(&self.log));
                return Err(format!("{why}; it said\n{text}\nand logged\n{log}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects what comes until it ends.
fn listen(mut port: impl Read + Send + 'static) -> Heard {
    let heard = Heard::default();
    let collected = Arc::clone(&heard);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = port.read(&mut buffer) {
            collected
                .lock()
                .expect("no thread panics")
                .extend(&buffer[..read]);
        }
    });
    heard
}

/// The text, as the story said it: the board puts a carriage return before each line feed. An
/// incomplete character at the end is left out.
fn so_far(heard: &Heard) -> String {
    let bytes = heard.lock().expect("no thread panics");
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    text.trim_end_matches('\r').replace("\r\n", "\n")
}

/// The linked firmware, which is greedy.
fn build(model: &Path) -> Result<PathBuf, Error> {
    let output = Command::new("bash")
        .arg(boards_folder().canonicalize()?.join("cross.sh"))
        .args([TARGET, "--", "build", "--release", "--locked"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(boards_folder().join("raspi3"))
        .env("BROOKLET_MODEL", model.canonicalize()?)
        .env("BROOKLET_TEMPERATURE_PERCENT", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the firmware of the Raspberry Pi 3 does not build".into());
    }
    executable(&String::from_utf8(output.stdout)?)
}
