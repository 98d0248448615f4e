//! Models by name: their manifests, their sources, and their places in the store.
//!
//! In this order, each importing only what stands before it: [`manifest`], [`hub`], [`store`],
//! [`pull`].

pub mod hub;
pub mod manifest;
pub mod pull;
pub mod store;
