//! Short tasks one after the other: what leases are for.

use super::{Child, Op, Placing, Slot, Writer};

impl Writer {
    /// Mostly each task is read before the next one; some are passed on before they have ended, or
    /// are not wanted at all.
    pub(super) fn one_by_one(&mut self, count: u64) {
        for _ in 0..count {
            let slot = self.short();
            match self.rng.below(12) {
                0 => {
                    let next = self.child(0, vec![slot], Vec::new());
                    self.ops.push(Op::Get(next));
                }
                1 => drop(self.child(0, Vec::new(), vec![slot])),
                2 => {
                    let outer = self.put(vec![slot]);
                    self.ops.push(Op::Get(outer));
                }
                3 => self.ops.push(Op::Drop(slot)),
                4 | 5 => {}
                6 => {
                    let time = self.rng.below(400_000);
                    self.ops.push(Op::Compute(time));
                }
                _ => self.ops.push(Op::Get(slot)),
            }
        }
    }

    pub(super) fn short(&mut self) -> Slot {
        self.ops.push(Op::Submit(Child {
            seed: self.rng.next(),
            depth: u8::from(self.rng.one_in(10)),
            dependencies: Vec::new(),
            borrowed: Vec::new(),
            cpus: 1.0,
            place: Placing::Default,
            inline: !self.rng.one_in(8),
            returns: 1,
            ..Child::default()
        }));
        self.slots += 1;
        self.slots - 1
    }
}
