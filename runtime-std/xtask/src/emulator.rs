//! An image at work in QEMU: its UART, its log decoded with its own symbols, and the instructions
//! that it takes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use brooklet_board_data::Board;
use defmt_decoder::{DecodeError, Table};

use crate::Error;

/// With `-icount shift=0` an instruction takes a nanosecond of the emulated clock.
const INSTRUCTIONS_A_SECOND: u64 = 1_000_000_000;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `INFO`, `WARN`, ...
    pub level: String,
    /// The message.
    pub text: String,
}

impl Entry {
    /// The token and its cycles, if the line reports a token.
    pub fn token(&self) -> Option<(u32, u64)> {
        let words: Vec<&str> = self.text.split(' ').collect();
        match words[..] {
            ["token", id, "took", cycles, "cycles"] => {
                Some((id.parse().ok()?, cycles.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// A board that runs.
pub struct Session {
    child: Child,
    typing: ChildStdin,
    text: Arc<Mutex<Vec<u8>>>,
    log: Receiver<Result<Entry, String>>,
    end: Instant,
    /// All that was logged.
    pub entries: Vec<Entry>,
    clock: u64,
    instructions: u64,
    most_instructions: u64,
}

/// A token that the board said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The token.
    pub id: u32,
    /// Instructions that it took.
    pub instructions: u64,
}

impl Session {
    /// Boots `image` on the board's machine, with a limit of instructions and time.
    ///
    /// # Errors
    /// If QEMU cannot be started, or the image has no table of log messages.
    pub fn start(
        image: &Path,
        board: &Board,
        limit: Limit,
        more: &[String],
    ) -> Result<Session, Error> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("log");
        let listener = UnixListener::bind(&socket)?;
        let mut child = Command::new("qemu-system-arm")
            .args([
                "-M",
                &board.machine,
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
            ])
            .args(["-icount", "shift=0", "-serial", "stdio", "-serial"])
            .arg(format!("unix:{}", socket.display()))
            .args(more)
            .arg("-kernel")
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start qemu-system-arm: {e}"))?;
        let (Some(typing), Some(mut speech)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes to the emulator".into());
        };
        let text = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&text);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = speech.read(&mut buffer) {
                heard
                    .lock()
                    .expect("no thread panics")
                    .extend(&buffer[..read]);
            }
        });
        let table = Table::parse(&fs::read(image)?)
            .map_err(|e| format!("{}: {e}", image.display()))?
            .ok_or("the image logs nothing")?;
        let (send, log) = channel();
        thread::spawn(move || {
            let _folder = folder;
            if let Ok((stream, _)) = listener.accept() {
                decode(stream, &table, &send);
            }
        });
        Ok(Session {
            child,
            typing,
            text,
            log,
            end: Instant::now() + limit.time,
            entries: Vec::new(),
            clock: board.clock.into(),
            instructions: 0,
            most_instructions: limit.instructions,
        })
    }

    /// The next line of the log; `None` at its end.
    ///
    /// # Errors
    /// If the log cannot be decoded, or a limit is passed.
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        let left = self.end.saturating_duration_since(Instant::now());
        match self.log.recv_timeout(left) {
            Ok(entry) => {
                let entry = entry?;
                self.entries.push(entry.clone());
                Ok(Some(entry))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.failed("the board is too slow")),
        }
    }

    /// The next token that is said.
    ///
    /// # Errors
    /// If none is, or a limit is passed.
    pub fn said(&mut self) -> Result<Said, Error> {
        loop {
            let entry = self.expect_more()?;
            if let Some((id, cycles)) = entry.token() {
                let instructions = cycles * INSTRUCTIONS_A_SECOND / self.clock;
                self.instructions += instructions;
                if self.instructions > self.most_instructions {
                    let most = self.most_instructions;
                    return Err(
                        self.failed(&format!("the tokens took more than {most} instructions"))
                    );
                }
                return Ok(Said { id, instructions });
            }
        }
    }

    /// Goes on until a line of the log has `words` in it.
    ///
    /// # Errors
    /// If none does, or a limit is passed.
    pub fn wait_for(&mut self, words: &str) -> Result<Entry, Error> {
        loop {
            let entry = self
                .expect_more()
                .map_err(|e| format!("waiting for {words:?}: {e}"))?;
            if entry.text.contains(words) {
                return Ok(entry);
            }
        }
    }

    /// Returns true if a line of the log so far has `words` in it.
    pub fn has_logged(&self, words: &str) -> bool {
        self.entries.iter().any(|entry| entry.text.contains(words))
    }

    /// Types on the board's UART.
    ///
    /// # Errors
    /// If the emulator is gone.
    pub fn type_in(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.typing.write_all(bytes)?;
        Ok(self.typing.flush()?)
    }

    /// All that came over the UART, once it is at least `bytes` long.
    ///
    /// # Errors
    /// If less comes before the deadline.
    pub fn text(&self, bytes: usize) -> Result<Vec<u8>, Error> {
        self.wait_for_text(|text| text.len() >= bytes)
            .map_err(|text| format!("{} bytes came instead of {bytes}", text.len()).into())
    }

    /// Waits until `words` have come over the UART, which is slower than the log.
    ///
    /// # Errors
    /// If they have not come before the deadline.
    pub fn hear(&self, words: &str) -> Result<(), Error> {
        self.wait_for_text(|text| String::from_utf8_lossy(text).contains(words))
            .map(|_| ())
            .map_err(|text| {
                let text = String::from_utf8_lossy(&text);
                format!("{words:?} is not in the text of the board:\n{text}").into()
            })
    }

    /// All that came over the UART, once it `is_enough`; at the deadline as an error.
    fn wait_for_text(&self, is_enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, Vec<u8>> {
        loop {
            let text = self.text.lock().expect("no thread panics").clone();
            if is_enough(&text) {
                return Ok(text);
            }
            if Instant::now() >= self.end {
                return Err(text);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Bytes of stack that were used, as the log said last.
    ///
    /// # Errors
    /// If it has not said so.
    pub fn stack(&self) -> Result<u32, Error> {
        let word = self.entries.iter().rev().find_map(|entry| {
            let (_, rest) = entry.text.split_once("stack ")?;
            rest.split(' ').next()
        });
        Ok(word
            .ok_or("the log does not say how much stack is used")?
            .parse()?)
    }

    fn expect_more(&mut self) -> Result<Entry, Error> {
        match self.next()? {
            Some(entry) => Ok(entry),
            None => Err(self.failed("the board stopped")),
        }
    }

    /// Ends the run. The error says the end of its log and its text, then why: of a long message,
    /// the last lines are what is read.
    fn failed(&mut self, why: &str) -> Error {
        let _ = self.child.kill();
        let mut errors = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut errors);
        }
        let text = self.text.lock().expect("no thread panics");
        let log: Vec<String> = self
            .entries
            .iter()
            .rev()
            .take(8)
            .rev()
            .map(|entry| format!("{} {}", entry.level, entry.text))
            .collect();
        format!(
            "a run on an emulated board failed\nit said {:?}, the log ends with\n{}\nthe emulator said {errors:?}\n{why}",
            String::from_utf8_lossy(&text),
            log.join("\n")
        )
        .into()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Limits of a run, after which the board is stopped.
#[derive(Clone, Copy)]
pub struct Limit {
    /// Instructions of all its tokens.
    pub instructions: u64,
    /// Time on this machine.
    pub time: Duration,
}

impl Limit {
    /// For `tokens` tokens of a model of `parameters` parameters: 100 instructions for each
    /// parameter and token, far more than any board takes, and time for a slow machine.
    pub fn of(tokens: usize, parameters: usize) -> Limit {
        let instructions = 100 * tokens as u64 * parameters as u64;
        Limit {
            instructions,
            time: Duration::from_secs(400) + Duration::from_millis(instructions / 100_000),
        }
    }
}

/// Decodes frames until the stream ends.
fn decode(mut stream: impl Read, table: &Table, log: &Sender<Result<Entry, String>>) {
    let mut decoder = table.new_stream_decoder();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        decoder.received(&buffer[..read]);
        loop {
            let entry = match decoder.decode() {
                Ok(frame) => Ok(Entry {
                    level: frame
                        .level()
                        .map_or(String::new(), |level| level.as_str().to_uppercase()),
                    text: frame.display_message().to_string(),
                }),
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => Err("a broken frame in the log".into()),
            };
            if log.send(entry).is_err() {
                return;
            }
        }
    }
}
