//! The other end of a terminal: a person's screen and keys.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// Longest wait for what must come: far more than it takes, since machines may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal of its own.
pub struct Terminal {
    keys: File,
    /// The program's end, to be asked for its modes.
    line: File,
    screen: Receiver<Vec<u8>>,
    /// All that was on the screen.
    pub text: String,
    /// The part of it that was waited for.
    seen: usize,
    rest: Vec<u8>,
    pub child: Child,
    before: Termios,
    /// The person's folder for states.
    _state: tempfile::TempDir,
}

/// True if there is a way to give a program a terminal.
pub fn has_terminals() -> bool {
    let has = Command::new("setsid").arg("--version").output().is_ok();
    if !has || cfg!(not(target_os = "linux")) || !crate::program::runner().is_empty() {
        println!("skipped: there is no `setsid`, or an emulator runs the program");
        return false;
    }
    true
}

impl Terminal {
    /// Starts the program with these arguments on a terminal of `columns` columns.
    pub fn start(arguments: &[&str], columns: u16, set: impl FnOnce(&mut Command)) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            let mut options = OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::custom_flags(
                &mut options,
                OpenptFlags::NOCTTY.bits() as i32,
            );
            let path = name.to_str().unwrap();
            options.read(true).write(true).open(path).unwrap()
        };
        let line = open();
        resize(&line, columns);
        let before = tcgetattr(&line).unwrap();
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", env!("CARGO_BIN_EXE_brooklet")])
            .args(arguments)
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .env("XDG_STATE_HOME", state.path())
            .env_remove("COLUMNS")
            .stdin(open())
            .stdout(open())
            .stderr(open());
        set(&mut command);
        let child = command.spawn().unwrap();
        let keys = File::from(master);
        let mut reader = keys.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The read fails once nobody has the other end.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal {
            keys,
            line,
            screen,
            text: String::new(),
            seen: 0,
            rest: Vec::new(),
            child,
            before,
            _state: state,
        }
    }

    /// Types these keys.
    pub fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `wanted` appears after what was waited for before; returns all between, with it.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.text[self.seen..].find(wanted) {
                let from = self.seen;
                self.seen += at + wanted.len();
                return self.text[from..self.seen].to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.show(&more),
                Err(_) => panic!("no {wanted:?} in {:?}", &self.text[self.seen..]),
            }
        }
    }

    /// Adds what has come to the text, as far as it is whole characters.
    fn show(&mut self, more: &[u8]) {
        self.rest.extend(more);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.rest.split_off(whole);
        self.text += &String::from_utf8_lossy(&self.rest);
        self.rest = rest;
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for the end of the program; returns its status, and whether the terminal has its old
    /// modes.
    #[track_caller]
    pub fn end(&mut self) -> (ExitStatus, bool) {
        let status = end(&mut self.child);
        while let Ok(more) = self.screen.recv_timeout(Duration::from_millis(100)) {
            self.show(&more);
        }
        let now = tcgetattr(&self.line).unwrap();
        let same = now.local_modes == self.before.local_modes
            && now.input_modes == self.before.input_modes
            && now.output_modes == self.before.output_modes;
        (status, same)
    }

    /// Makes the terminal as wide as this, and tells the program.
    pub fn resize(&self, columns: u16) {
        resize(&self.line, columns);
    }
}

fn resize(line: &File, columns: u16) {
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(line, size).unwrap();
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a program.
pub fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for a program's end.
#[track_caller]
pub fn end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The status that a shell shows.
pub fn shell_status(status: ExitStatus) -> i32 {
    let of_signal = |signal| 128 + signal;
    status
        .code()
        .or(status.signal().map(of_signal))
        .unwrap_or(-1)
}
