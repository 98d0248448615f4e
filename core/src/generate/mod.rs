//! From a prompt to text, token by token: the one loop that the command, a chat, firmware and
//! calibration use.
//!
//! - [`Feed`]: the receiver of tokens, a [`Stream`] or a wrapper that keeps account of one.
//! - [`Generation`]: the loop. It feeds a prompt chunk by chunk, then chooses one token a call and
//!   turns it into text: whole characters ([`Utf8Stream`]) that belong to no stop text
//!   ([`StopFilter`]). It owns no buffer and borrows nothing between two calls. A caller cancels by
//!   not calling it again.
//! - [`Session`]: a generation with its stream, tokenizer and sampler.
//!
//! Nothing here allocates.
//!
//! [`Stream`]: crate::stream::Stream
//! [`Utf8Stream`]: crate::tokenizer::Utf8Stream

mod feed;
mod generation;
mod session;
mod stop;

pub use feed::{Feed, Next};
pub use generation::{AtEnd, Finish, Generation, Parts, Step};
pub use session::{NoStops, Request, Session};
pub use stop::StopFilter;

#[cfg(test)]
mod tests;
