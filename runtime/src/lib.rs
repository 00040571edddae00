//! rdist: tasks, actors and zero-copy objects on a cluster of machines.
//!
//! A program declares functions as tasks and structs as actors; a worker starts it as an executor
//! wherever its code is to run.
//!
//! ```text
//!  client ──QUIC──► head ◄──QUIC──► worker ◄──QUIC──► worker   transport, wire::cluster
//!                   head::            worker::
//!                   ClusterCore       LocalCore
//!                   sled              │  ▲ rings: wire::executor
//!                                     ▼  │ objects: store
//!                                   executor: the user's program     executor, api, prelude
//! ```
//! **Data flow.** A call becomes a [`TaskSpec`](scheduler::spec::TaskSpec) in the submitter's
//! process ([`Context`]), a frame in its ring, an event in its worker's core. The core's action
//! makes it a frame in another executor's ring, or a message on a link to the head or to another
//! worker. Values of up to [`MAX_INLINE_BYTES`](wire::executor::MAX_INLINE_BYTES) travel inside
//! messages; larger ones stay where they were written ([`store`]) and are read in place, or pulled
//! over a stream of their own (`transfer`) when a reader is on another machine.
//!
//! **Where a newcomer looks.** What a user types: `api`. The process that runs it: `executor`.
//! The daemon of a machine: [`worker`], and in it `dispatch` for everything that happens locally.
//! The control plane: [`head`]. Bytes across processes: [`ring`], [`store`], `transfer`,
//! [`transport`]; their meaning: [`wire`]. Who submits and asks: [`client`].
//!
//! **Invariants.** No decision is taken here: which task runs where, what is kept, what is tried
//! again, is said by the cores of [`scheduler`]; this crate carries it out. A value's bytes are in
//! a worker's table before its core hears of the value, and leave after the core has let go. What
//! comes from another process is checked before it is used, and an executor that breaks the
//! protocol is ended with a reason. The path of a local call takes no lock that is shared with the
//! network, and makes no system call while both sides are awake.
//!
//! **Not here.** libtorch, models and data (`rdist-workloads`); what people see (`rdist-cli`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The macros name this crate `::rdist`, in its own tests, too.
extern crate self as rdist;

mod api;
pub mod client;
pub mod config;
mod executor;
#[doc(hidden)]
pub mod fuzzing;
pub mod head;
pub mod machine;
pub mod prelude;
pub mod ring;
#[doc(hidden)]
pub mod spawn;
pub mod store;
mod transfer;
pub mod transport;
pub mod wire;
pub mod worker;

pub use rdist_macros::{actor, main, predicate, task, value};
pub use rdist_scheduler as scheduler;
pub use rdist_scheduler::id::WorkerId;
pub use rdist_scheduler::spec::{GroupStrategy, LabelRule};
pub use rkyv::{self, Archive, Deserialize, Serialize};

pub use api::actor::{Actor, ActorHandle, Call, Spawning, named_actor};
pub use api::all::All;
pub use api::argument::{IntoArgument, Parameter};
pub use api::checkpoint::Checkpoint;
pub use api::context::{Context, Driver};
pub use api::error::{Error, Result};
pub use api::fault::{AnyError, ErrorPredicate, Fault};
pub use api::group::{Bundle, PlacementGroup};
pub use api::labels::{Label, label};
pub use api::object::{ObjectFuture, ObjectRef};
pub use api::options::{Placement, TaskOptions};
pub use api::pool::ActorPool;
pub use api::stream::{Items, ObjectStream};
pub use api::value::Value;
pub use api::view::View;
pub use api::writing::Writing;
pub use executor::{ABANDONED_STATUS, DRIVER_FILES, EXECUTOR_FD, SCRATCH};

/// A view by its short name: `object.read()?` is a `Ref<T>`.
pub type Ref<T> = View<T>;

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// What the macros' expansions use. No part of the interface; may change at any time.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::api::actor::{CallRules, RawActor};
    pub use crate::api::argument::{Argument, Arguments};
    pub use crate::api::checkpoint::Checkpointing;
    pub use crate::api::error::{Failure, FailureOfDisplay, FailureOfError, Thrown};
    pub use crate::api::several::{
        List, Several, encode_each, encode_several, submit_each, submit_several,
    };
    pub use crate::api::stream::{submit_stream, yield_all};
    pub use crate::executor::inherited::socket_text;
    pub use crate::executor::launch::{execute, launch};
    pub use crate::executor::process::Encoded;
    pub use crate::executor::registry::{
        ActorBody, Body, CallFuture, Class, Function, Method, MethodBody, PredicateBody,
        SharedState, State, TaskBody, function_id,
    };
    pub use crate::executor::run::DriverBody;

    use crate::scheduler::spec::TaskKind;
    use crate::{Context, Driver, ObjectRef, TaskOptions, Value};

    /// Submits a plain task.
    pub fn submit<T: Value>(
        cx: &Context,
        function: u64,
        options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> ObjectRef<T> {
        ObjectRef::of(cx.submit(function, TaskKind::Plain, options, arguments))
    }

    /// Runs an async main function, with tokio's timers and sockets at hand.
    pub fn drive<F: Future>(cx: &Driver, future: F) -> Result<F::Output, Failure> {
        crate::executor::launch::drive(cx, future)
    }

    /// For a call that reached an actor of another type.
    pub fn not_this_actor(method: &str) -> Failure {
        Failure::Refused(format!("`{method}` was called on an actor of another type"))
    }

    /// The shared state of an actor, on its way to its type.
    #[derive(Debug)]
    pub struct Downcast(pub SharedState);

    impl Downcast {
        /// The state, if it is of that type.
        pub fn downcast<A: Send + Sync + 'static>(self) -> Option<std::sync::Arc<A>> {
            self.0.downcast().ok()
        }
    }

    /// Archives what a function returned.
    pub fn encode<T: Value>(cx: &Context, value: &T) -> Result<Encoded, Failure> {
        Ok(cx.process().encode(value)?)
    }

    /// The `T` of a `Result<T, E>`, whatever the result is called.
    pub trait Fallible {
        /// The `T`.
        type Value;
        /// The `E`.
        type Error;

        /// As the standard library's type.
        fn into_result(self) -> Result<Self::Value, Self::Error>;
    }

    impl<T, E> Fallible for Result<T, E> {
        type Value = T;
        type Error = E;

        fn into_result(self) -> Self {
            self
        }
    }
}
