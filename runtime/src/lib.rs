//! rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The macros name this crate `::rdist`, in its own tests, too.
extern crate self as rdist;

mod api;
pub mod config;
mod executor;
pub mod prelude;
pub mod ring;
pub mod store;
mod transfer;
pub mod transport;
pub mod wire;
pub mod worker;

pub use rdist_macros::{actor, main, task, value};
pub use rdist_scheduler as scheduler;
pub use rkyv::{self, Archive, Deserialize, Serialize};

pub use api::actor::{Actor, ActorHandle, Call, Spawning, named_actor};
pub use api::argument::{IntoArgument, Parameter};
pub use api::context::{Context, Driver};
pub use api::error::{Error, Result};
pub use api::object::{ObjectFuture, ObjectRef};
pub use api::options::{Placement, TaskOptions};
pub use api::value::Value;
pub use api::view::View;
pub use api::writing::Writing;
pub use executor::{ABANDONED_STATUS, EXECUTOR_FD};

/// A view by its short name: `object.read()?` is a `Ref<T>`.
pub type Ref<T> = View<T>;

/// What the macros' expansions use. No part of the interface; may change at any time.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::api::actor::RawActor;
    pub use crate::api::argument::{Argument, Arguments};
    pub use crate::api::error::{Failure, FailureOfDisplay, FailureOfError, Thrown};
    pub use crate::executor::launch::{execute, launch};
    pub use crate::executor::process::Encoded;
    pub use crate::executor::registry::{
        ActorBody, Body, Function, MethodBody, TaskBody, function_id,
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
