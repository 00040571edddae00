//! What a job's program needs: `use rdist::prelude::*;`.

pub use crate::{
    Actor, ActorHandle, All, AnyError, Context, Driver, Error, Fault, IntoArgument, ObjectRef,
    Placement, Ref, Result, View, named_actor,
};
