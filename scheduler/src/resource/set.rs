//! A set of resources: what a worker has, what a task asks for.

use core::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use super::Amount;

/// CPUs, GPUs, bytes of memory, and custom resources by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs.
    pub cpu: Amount,
    /// GPUs.
    pub gpu: Amount,
    /// Bytes of memory.
    pub memory: Amount,
    /// Custom resources, of which most sets have none.
    custom: Option<Box<Custom>>,
}

/// Custom resources, sorted by name, none of them zero; and at least one.
type Custom = Vec<(String, Amount)>;

impl Resources {
    /// Nothing at all.
    pub const NONE: Self =
        Self { cpu: Amount::ZERO, gpu: Amount::ZERO, memory: Amount::ZERO, custom: None };

    /// `n` CPUs and nothing else.
    pub fn cpus(n: f64) -> Self {
        Self { cpu: Amount::from_f64(n), ..Self::NONE }
    }

    /// Sets the custom resource `name`.
    pub fn set(&mut self, name: &str, amount: Amount) {
        match self.place_of(name) {
            Err(_) if amount.is_zero() => {}
            Err(at) => {
                let custom = self.custom.get_or_insert_default();
                custom.insert(at, (name.to_owned(), amount));
            }
            Ok(at) => {
                let Some(custom) = &mut self.custom else { return };
                if !amount.is_zero() {
                    custom[at].1 = amount;
                } else if custom.len() > 1 {
                    custom.remove(at);
                } else {
                    self.custom = None;
                }
            }
        }
    }

    fn custom_slice(&self) -> &[(String, Amount)] {
        self.custom.as_deref().map_or(&[], Vec::as_slice)
    }

    fn place_of(&self, name: &str) -> Result<usize, usize> {
        self.custom_slice().binary_search_by(|(other, _)| other.as_str().cmp(name))
    }

    /// How much there is of the custom resource `name`.
    pub fn get(&self, name: &str) -> Amount {
        self.place_of(name).map_or(Amount::ZERO, |at| self.custom_slice()[at].1)
    }

    /// Custom resources by name, in order.
    pub fn custom(&self) -> impl Iterator<Item = (&str, Amount)> {
        self.custom_slice().iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether `self` holds at least `request`, in every resource.
    pub fn covers(&self, request: &Self) -> bool {
        self.shortage(request).is_none()
    }

    /// The first resource of which `self` holds less than `request`: its name, wanted, held.
    pub fn shortage<'a>(&self, request: &'a Self) -> Option<(&'a str, Amount, Amount)> {
        if request.cpu > self.cpu {
            return Some(("CPU", request.cpu, self.cpu));
        }
        if request.gpu > self.gpu {
            return Some(("GPU", request.gpu, self.gpu));
        }
        if request.memory > self.memory {
            return Some(("memory", request.memory, self.memory));
        }
        request
            .custom()
            .map(|(name, wanted)| (name, wanted, self.get(name)))
            .find(|(_, wanted, held)| wanted > held)
    }

    /// Whether it is one CPU and nothing else, as most requests are.
    pub fn is_one_cpu(&self) -> bool {
        self.cpu == Amount::whole(1)
            && self.gpu.is_zero()
            && self.memory.is_zero()
            && self.custom.is_none()
    }

    /// Whether there is nothing in it.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.gpu += other.gpu;
        self.memory += other.memory;
        for (name, amount) in other.custom() {
            self.set(name, self.get(name) + amount);
        }
    }

    /// Takes `other` away. May leave less than nothing: a blocked task that goes on takes its CPU
    /// back before somebody else has let go of it.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu -= other.cpu;
        self.gpu -= other.gpu;
        self.memory -= other.memory;
        for (name, amount) in other.custom() {
            self.set(name, self.get(name) - amount);
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.cpu.is_zero() {
            parts.push(format!("{} CPU", self.cpu));
        }
        if !self.gpu.is_zero() {
            parts.push(format!("{} GPU", self.gpu));
        }
        if !self.memory.is_zero() {
            parts.push(format!("{:.1} MiB", self.memory.as_f64() / f64::from(1 << 20)));
        }
        parts.extend(self.custom().map(|(name, amount)| format!("{amount} {name}")));
        if parts.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&parts.join(", "))
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
