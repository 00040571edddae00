//! Actors that are found by name.

use super::{Op, Writer};

/// A name that several programs, or several tries of one, want for their actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// No other job uses it.
    OfJob(u64),
    OfAll(u64),
}

impl Writer {
    /// Claims a few names, some of them twice; calls whom it has made or found, and ends some.
    pub(super) fn named(&mut self, count: u64) {
        let mut known: Vec<(Name, usize)> = Vec::new();
        for _ in 0..2 + count / 2 {
            let n = self.rng.below(2);
            let name = if self.rng.one_in(2) { Name::OfJob(n) } else { Name::OfAll(n) };
            let was_claimed = known.iter().any(|(other, _)| *other == name);
            if was_claimed && self.rng.one_in(2) {
                self.ops.push(Op::LookUp(name));
            } else {
                self.ops.push(Op::Claim { name, or_get: self.rng.one_in(2) });
                self.ops.push(Op::Drop(self.slots));
                self.slots += 1;
            }
            known.push((name, self.named));
            self.named += 1;
            for _ in 0..1 + self.rng.below(4) {
                self.ops.push(Op::CallNamed(self.named - 1));
                self.ops.push(Op::Get(self.slots));
                self.slots += 1;
            }
            if self.rng.one_in(3) {
                let of_name = known.iter().filter(|(other, _)| *other == name);
                self.ops.extend(of_name.map(|(_, n)| Op::KillNamed(*n)));
            }
        }
    }
}
