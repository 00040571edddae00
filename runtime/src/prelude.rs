//! What a job's program needs: `use rdist::prelude::*;`.

pub use crate::{
    Actor, ActorHandle, Context, Driver, Error, IntoArgument, ObjectRef, Placement, Ref, Result,
    View, named_actor,
};
