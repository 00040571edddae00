//! What user programs see: tasks, actors, objects, and the context that they are used from.
//!
//! Everything here speaks to the process side in `executor`; nothing here knows a ring or a
//! socket. The attribute macros expand to calls of what [`crate::__private`] exports.

pub(crate) mod actor;
pub(crate) mod all;
pub(crate) mod argument;
pub(crate) mod checkpoint;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod fault;
pub(crate) mod group;
pub(crate) mod labels;
pub(crate) mod object;
pub(crate) mod options;
pub(crate) mod pool;
pub(crate) mod several;
pub(crate) mod stream;
pub(crate) mod value;
pub(crate) mod view;
pub(crate) mod writing;
