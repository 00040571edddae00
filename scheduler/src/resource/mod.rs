//! Resources: amounts in fixed point, sets of them, and who holds what.

mod amount;
mod set;

pub use amount::Amount;
pub use set::Resources;
