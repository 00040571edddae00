//! Tasks that yield, and who takes what they yield: to the end, or not.

use rdist_scheduler::message::CancelMode;

use super::trouble::ENDLESS;
use super::{Child, Op, Placing, Program, Trouble, Writer};
use crate::network::Rng;

/// Longer than any job.
pub const FOR_EVER: u64 = 100_000_000_000;

/// How a consumer leaves a stream that goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ending {
    /// It has the producer cancelled when it has taken so many, and reads on.
    pub cancel: Option<(u32, CancelMode)>,
    /// It has asked for one more when it lets go.
    pub asks: bool,
}

impl Writer {
    pub(super) fn streams(&mut self, count: u64) {
        for _ in 0..1 + count / 6 {
            let mut trouble = Trouble::some(&mut self.rng, self.what, false);
            trouble.fails = trouble.fails.min(2);
            let (op, kept) = stream(&mut self.rng, trouble);
            self.ops.push(op);
            self.slots += kept;
        }
    }

    /// Streams of which the consumer lets go, or that it has cancelled; half of them have no end.
    pub(super) fn cut_short(&mut self, count: u64) {
        for _ in 0..1 + count / 4 {
            let trouble = match self.rng.below(4) {
                0 => Trouble { fails: 1, ..Trouble::default() },
                1 => Trouble::default(),
                _ => Trouble { hangs: ENDLESS, ..Trouble::default() },
            };
            let (Op::Stream { mut child, .. }, _) = stream(&mut self.rng, trouble) else { return };
            child.cpus = [0.5, 1.0][self.rng.below(2) as usize];
            let first = self.rng.below(u64::from(child.items) + 1) as u32;
            let mut ending = Ending { cancel: None, asks: self.rng.one_in(2) };
            let mut take = first;
            if self.rng.one_in(2) {
                let force = self.what.forces && self.rng.one_in(6);
                ending.cancel = Some((first, CancelMode { force, children: self.rng.one_in(2) }));
                take = child.items + 1;
            }
            let keep = take <= child.items && self.rng.one_in(2);
            self.slots += if keep { take as usize } else { 0 };
            self.ops.push(Op::Stream { child, take, keep, ending });
            if self.rng.one_in(4) {
                self.short();
            }
        }
        // Until what is left of them has ended.
        self.ops.push(Op::Compute(50_000_000));
    }
}

/// What a task does that yields; endless: it has yielded all, and goes on until somebody ends it.
pub fn stream_program(seed: u64, items: u32, is_endless: bool) -> Program {
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
    if is_endless {
        program.ops.push(Op::Compute(FOR_EVER));
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
    let ending = Ending::default();
    (Op::Stream { child, take, keep, ending }, if keep { take as usize } else { 0 })
}
