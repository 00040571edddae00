//! Tasks that end badly before they end well.

use super::Mix;
use crate::network::Rng;

/// Every try of a task goes on until somebody ends it, and there is no limit to its time.
pub const ENDLESS: u8 = u8::MAX;

/// How tries of a task end badly that nothing happens to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// So many tries return an error that is worth another one.
    pub fails: u8,
    /// So many tries go on for ever.
    pub hangs: u8,
    /// And do not end when they are asked to.
    pub stubborn: bool,
}

impl Trouble {
    /// Whether its tries are limited, or repeated.
    pub fn has_policy(self) -> bool {
        self.fails > 0 || (self.hangs > 0 && self.hangs < ENDLESS)
    }

    pub(super) fn some(rng: &mut Rng, what: Mix, may_hang: bool) -> Self {
        match rng.below(if what.trouble { 12 } else { 1 }) {
            1 => Self { fails: 1 + rng.below(3) as u8, ..Self::default() },
            2 if may_hang => {
                let stubborn = what.stubborn && rng.one_in(4);
                Self { hangs: 1 + rng.below(2) as u8, stubborn, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}
