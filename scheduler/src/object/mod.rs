//! Tables of objects: who refers to each, where its copies are, how it could be made again. They
//! send nothing; `local` moves objects through them.

mod entry;
mod lineage;
mod set;

pub(crate) use entry::{Borrow, Contained, ObjectEntry, Value, Waiter};
pub(crate) use lineage::{Lineage, Tries};
pub(crate) use set::ObjectSet;
