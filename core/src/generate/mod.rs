//! From a prompt to text, token by token: the one loop of the command, a chat, firmware and calibration.
//!
//! - [`Feed`]: what tokens are fed to, a [`Stream`] or something that keeps account of one.
//! - [`Generation`]: the loop. It feeds a prompt chunk by chunk, then chooses one token a call and turns it into
//!   text: whole characters ([`Utf8Stream`]) that belong to no stop text ([`StopFilter`]). It owns no buffer, borrows
//!   nothing between two calls, and may be left alone after any of them: that is how a caller cancels.
//! - [`Session`]: a generation with the stream, the tokenizer and the sampler that it works with.
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
pub use session::{Request, Session};
pub use stop::StopFilter;

#[cfg(test)]
mod tests;
