//! Resources: amounts in fixed point, sets of them, and who holds what.

mod amount;
mod gpus;
mod ledger;
mod set;

pub use amount::Amount;
pub(crate) use gpus::{Gpus, Held as HeldGpus};
pub(crate) use ledger::Ledger;
pub use set::Resources;
