//! The program's functions, as the macros declared them.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::process::Encoded;
use crate::api::argument::Arguments;
use crate::api::checkpoint::Checkpointing;
use crate::api::context::Context;
use crate::api::error::Failure;
use crate::api::fault::Fault;

/// A task's function, with its types worn off.
pub type TaskBody = fn(&mut Arguments<'_>, &Context) -> Result<Encoded, Failure>;
/// An actor's constructor.
pub type ActorBody = fn(&mut Arguments<'_>, &Context) -> Result<State, Failure>;

/// The value of an actor whose calls may run beside each other.
pub type SharedState = Arc<dyn Any + Send + Sync>;

/// The rest of a call that waits without a thread.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<Encoded, Failure>> + Send>>;

/// A predicate for errors.
pub type PredicateBody = fn(&Fault<'_>) -> bool;

/// One function that other processes can name.
#[derive(Debug)]
pub struct Function {
    /// [`function_id`] of the name.
    pub id: u64,
    /// Crate, modules, name.
    pub name: &'static str,
    /// What to call.
    pub body: Body,
}

/// What to call.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// A function.
    Task(TaskBody),
    /// What makes an actor.
    Actor(&'static Class),
    /// A method.
    Method(Method),
    /// Tells which errors are worth another try.
    Predicate(PredicateBody),
}

/// What all actors of a type have in common.
#[derive(Debug)]
pub struct Class {
    /// Its constructor.
    pub make: ActorBody,
    /// Whether its state is [`State::Shared`].
    pub is_concurrent: bool,
    /// Calls of methods without a group that may be in flight.
    pub limit: u32,
    /// Named groups of methods with their limits.
    pub groups: &'static [(&'static str, u32)],
    /// How its state is saved.
    pub checkpoint: Option<Checkpointing>,
}

/// A method of an actor.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// What to call.
    pub body: MethodBody,
    /// 0, or one more than the place of its group in [`Class::groups`].
    pub group: usize,
}

/// A method, by how it gets at the actor.
#[derive(Clone, Copy)]
pub enum MethodBody {
    /// Alone.
    Exclusive(fn(&mut (dyn Any + Send), &mut Arguments<'_>, &Context) -> Result<Encoded, Failure>),
    /// Beside others, on a thread of its own.
    Shared(fn(&(dyn Any + Send + Sync), &mut Arguments<'_>, &Context) -> Result<Encoded, Failure>),
    /// Beside others, as a future.
    Async(fn(SharedState, &mut Arguments<'_>, &Context) -> Result<CallFuture, Failure>),
}

impl fmt::Debug for MethodBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exclusive(_) => "Exclusive",
            Self::Shared(_) => "Shared",
            Self::Async(_) => "Async",
        })
    }
}

/// What a constructor made.
#[derive(Debug)]
pub enum State {
    /// For one call at a time.
    Exclusive(Box<dyn Any + Send>),
    /// For several.
    Shared(SharedState),
}

impl State {
    /// For one call at a time.
    pub fn exclusive<A: Send + 'static>(actor: A) -> Self {
        Self::Exclusive(Box::new(actor))
    }

    /// For several.
    pub fn shared<A: Send + Sync + 'static>(actor: A) -> Self {
        Self::Shared(Arc::new(actor))
    }
}

inventory::collect!(Function);

/// The id of a function: FNV-1a over its full name, so that every build of a program, on every
/// machine, gives it the same one. Never 0, which is the driver.
pub const fn function_id(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    if hash == 0 { 1 } else { hash }
}

/// The id of the program's main function.
pub(crate) const DRIVER: u64 = 0;

/// The id of the call that ends its actor.
pub(crate) const TERMINATE: u64 = u64::MAX;

/// Functions by id.
#[derive(Debug)]
pub(crate) struct Registry {
    functions: HashMap<u64, &'static Function>,
}

/// Functions that cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("two functions have the same id, `{0}` and `{1}`: rename one of them")]
    SameId(&'static str, &'static str),
}

impl Registry {
    /// All functions of the program.
    pub(crate) fn collect() -> Result<Self, RegistryError> {
        let mut functions = HashMap::new();
        for function in inventory::iter::<Function> {
            if let Some(other) = functions.insert(function.id, function) {
                let other: &Function = other;
                return Err(RegistryError::SameId(other.name, function.name));
            }
        }
        Ok(Self { functions })
    }

    /// A function.
    pub(crate) fn get(&self, id: u64) -> Option<&'static Function> {
        self.functions.get(&id).copied()
    }

    /// Ids and names, for people who look at tasks.
    pub(crate) fn names(&self) -> Vec<(u64, String)> {
        let mut names: Vec<_> =
            self.functions.values().map(|f| (f.id, f.name.to_owned())).collect();
        names.push((DRIVER, "main".to_owned()));
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_fnv_1a() {
        // From the reference test vectors of FNV.
        assert_eq!(function_id(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(function_id("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(function_id("foobar"), 0x8594_4171_f739_67e8);
    }
}
