//! The command on a terminal, and each of its states when a signal comes. Unix only; a controlling
//! terminal comes from `setsid` of util-linux, without which the tests are skipped.
#![cfg(unix)]

#[expect(dead_code, reason = "no real model is needed here")]
mod common;
#[path = "common/program.rs"]
mod program;
#[path = "common/pty.rs"]
mod pty;
#[path = "common/talking.rs"]
mod talking;

#[path = "terminal/manners.rs"]
mod manners;
#[path = "terminal/signals.rs"]
mod signals;
