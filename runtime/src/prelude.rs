//! What a job's program needs: `use rdist::prelude::*;`.

pub use crate::{
    Actor, ActorHandle, ActorPool, All, AnyError, Bundle, Checkpoint, Context, Driver, Error,
    Fault, GroupStrategy, IntoArgument, ObjectRef, ObjectStream, Placement, PlacementGroup, Ref,
    Result, View, named_actor,
};
