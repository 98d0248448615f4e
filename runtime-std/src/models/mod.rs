//! Models by name: what they are, where they come from, where they lie.
//!
//! In this order, each importing only what stands before it: [`manifest`], [`hub`], [`store`],
//! [`pull`].

pub mod hub;
pub mod manifest;
pub mod pull;
pub mod store;
