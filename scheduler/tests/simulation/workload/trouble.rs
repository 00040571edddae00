//! Tasks that yield, and tasks that end badly before they end well.

use super::{Child, Mix, Op, Placing, Program};
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

/// What a task does that yields.
pub fn stream_program(seed: u64, items: u32) -> Program {
    let mut rng = Rng(seed);
    let mut program = Program::default();
    let mut slots = 0;
    for _ in 0..items {
        program.ops.push(Op::Compute(rng.below(500_000)));
        let mut contains = Vec::new();
        if rng.one_in(5) {
            let seed = rng.next();
            program.ops.push(Op::Put { seed, inline: rng.one_in(2), contains: Vec::new() });
            contains.push(slots);
            slots += 1;
        }
        program.ops.push(Op::Yield { seed: rng.next(), inline: rng.one_in(2), contains });
    }
    program
}

/// A stream that is read in part, to its last value, or to its end; and the slots that it takes.
pub(super) fn stream(rng: &mut Rng, trouble: Trouble) -> (Op, usize) {
    let items = rng.below(12) as u32;
    let take = match rng.below(3) {
        0 => items + 1,
        1 => items,
        _ => rng.below(u64::from(items) + 1) as u32,
    };
    let keep = take <= items && rng.one_in(2);
    let child = Child {
        seed: rng.next(),
        depth: 0,
        dependencies: Vec::new(),
        borrowed: Vec::new(),
        cpus: 0.5,
        place: if rng.one_in(3) { Placing::Spread } else { Placing::Default },
        inline: false,
        priority: 0,
        items,
        trouble,
        calls: None,
        cancels: false,
        returns: 1,
    };
    (Op::Stream { child, take, keep }, if keep { take as usize } else { 0 })
}
