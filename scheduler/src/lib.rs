//! The sans-IO scheduling cores of rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub(crate) mod actor;
pub mod cluster;
pub mod hash;
pub mod id;
pub mod local;
pub mod message;
pub(crate) mod object;
pub mod outcome;
pub mod placement;
pub mod resource;
pub mod spec;
pub(crate) mod task;
pub mod time;
