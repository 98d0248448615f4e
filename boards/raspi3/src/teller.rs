//! The board as the story sees it.

use core::fmt::{Arguments, Write};

use brooklet_firmware::Event;

use crate::board::{self, Board, Heard};

/// Tokens between two progress lines of the log.
const REPORT: u32 = 100;

/// Speaks and listens on the serial port, logs, and feeds the watchdog.
pub struct Teller {
    board: Board,
    said: u32,
    lost: u32,
}

impl Teller {
    /// On a board that has said nothing yet.
    pub const fn new(board: Board) -> Self {
        Teller {
            board,
            said: 0,
            lost: 0,
        }
    }

    /// Puts a line into the log.
    pub fn log(&mut self, line: Arguments<'_>) {
        writeln!(self.board.log(), "{line}\r").expect("the port cannot fail");
    }

    fn report(&mut self, ticks: u32) {
        let (said, microseconds) = (self.said, board::microseconds(ticks));
        let (used, room) = board::stack_used();
        self.log(format_args!(
            "{said} tokens, {microseconds} us the last, stack {used} of {room} bytes"
        ));
    }
}

impl brooklet_firmware::Board for Teller {
    fn say(&mut self, text: &str) {
        self.board.write_str(text).expect("the port cannot fail");
    }

    fn heard(&mut self) -> Option<u8> {
        loop {
            match self.board.heard() {
                Heard::Byte(byte) => return Some(byte),
                Heard::Damage => self.lost = self.lost.saturating_add(1),
                Heard::Nothing => break,
            }
        }
        match core::mem::take(&mut self.lost) {
            0 => {}
            lost => self.log(format_args!(
                "bytes were lost or damaged on the wire, {lost} times"
            )),
        }
        None
    }

    fn ticks(&mut self) -> u32 {
        board::ticks()
    }

    fn event(&mut self, event: Event) {
        self.board.feed_watchdog();
        match event {
            Event::Prompt { tokens } => self.log(format_args!("a prompt of {tokens} tokens")),
            Event::TooLong => self.log(format_args!(
                "a line longer than {} bytes is thrown away",
                brooklet_firmware::LINE
            )),
            Event::Prefilled { tokens, ticks } => {
                let microseconds = board::microseconds(ticks);
                self.log(format_args!(
                    "{tokens} tokens of the prompt took {microseconds} us"
                ));
            }
            Event::Said { ticks, .. } => {
                self.said = self.said.wrapping_add(1);
                if self.said.is_multiple_of(REPORT) {
                    self.report(ticks);
                }
            }
        }
    }
}
