//! The sans-IO scheduling cores of rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cluster;
pub mod id;
pub mod local;
pub mod message;
pub mod outcome;
pub mod placement;
pub mod resource;
pub mod spec;
pub mod time;
