//! Tasks that return several values, some of them where a label is.

use super::{Child, Op, Placing, Slot, Writer};

impl Writer {
    /// Of what a task returns some is read, some passed on, and some not wanted.
    pub(super) fn several(&mut self, count: u64) {
        for _ in 0..1 + count / 2 {
            let first = self.slots;
            let returns = 1 + self.rng.below(5) as u8;
            self.returning(returns, Vec::new());
            for slot in first..first + Slot::from(returns) {
                match self.rng.below(6) {
                    0 => self.returning(2, vec![slot]),
                    1 => drop(self.child(0, Vec::new(), vec![slot])),
                    2 => drop(self.put(vec![slot])),
                    3 => self.ops.push(Op::Drop(slot)),
                    _ => self.ops.push(Op::Get(slot)),
                }
            }
        }
    }

    fn returning(&mut self, returns: u8, dependencies: Vec<Slot>) {
        self.ops.push(Op::Submit(Child {
            seed: self.rng.next(),
            depth: u8::from(self.rng.one_in(6)),
            dependencies,
            borrowed: Vec::new(),
            cpus: [1.0, 1.0, 0.5][self.rng.below(3) as usize],
            place: match self.rng.below(4) {
                0 => Placing::Labelled(self.rng.next()),
                1 => Placing::Spread,
                _ => Placing::Default,
            },
            inline: self.rng.one_in(2),
            returns,
            ..Child::default()
        }));
        self.slots += Slot::from(returns);
    }
}
