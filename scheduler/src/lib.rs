//! The sans-IO scheduling cores of rdist.
pub mod cluster;
pub mod id;
pub mod local;
pub mod message;
pub mod outcome;
pub mod resource;
pub mod spec;
pub mod time;
