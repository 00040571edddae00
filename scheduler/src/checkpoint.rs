//! Actors that save their state: what is in a saved state, and why each call counts once.
//!
//! ```text
//!  caller's worker        actor's worker            executor            supervisor
//!     │ ───── Call ──────────►│ ───── Run ────────────►│                     │
//!     │                       │ ◄─1─ Saved(state, ─────┤                     │
//!     │                       │      calls' ends)      │                     │
//!     │                       ├──2── ActorSaved(state, applied calls) ──────►│
//!     │                       │ ◄─3─ SavedKept ──────────────────────────────┤
//!     │ ◄─4── Finished ───────┤                        │                     │
//!     ├──5── CallsSettled ──────────────────────────────────────────────────►│
//! ```
//! 1. The executor runs a number of calls, says nothing of their ends, and then sends all of them
//!    in one message with the state after the last of them. What it never sent never happened.
//! 2. The actor's worker passes the state on to the supervisor, with a note of each call in it
//!    ([`Applied`]): its id and its result. Where the two are one, 2 and 3 fall away.
//! 3. The supervisor has it. It lives as long as the actor does: an actor dies with its
//!    supervisor. So the state is as durable as anything about the actor.
//! 4. Only now do callers hear of the ends.
//! 5. A caller's worker that has a call's result, and no caller that might make the call again,
//!    says so in batches, and the note goes.
//!
//! When a life of the actor ends, the next one starts from the state that the supervisor has.
//! Callers' workers send again what they have no end of. Before a call runs, its id is looked up
//! among the notes: a call that is in the state is answered from its note. A call that is not is
//! run; nobody has seen an end of it, since ends are told after 3. Ids are derived, so that the
//! calls of a caller that runs again are the same calls.
//!
//! **CK-1** A saved state is kept for an actor that is supervised here and lives, or is hosted or
//! being made here, and for no other. **CK-2** Ends that wait for `SavedKept` are of calls that
//! run here.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::TaskId;
use crate::outcome::Outcome;

/// A call that is in a saved state.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Applied {
    /// The call.
    pub call: TaskId,
    /// How it ended.
    pub outcome: Outcome,
    /// The value, if it returned one that is inline and has no references inside. Others are
    /// nowhere but in the store of the worker where the call ran.
    pub value: Option<Vec<u8>>,
}

/// The end of a call, as an executor tells it with the state that the call is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedCall {
    /// Which try, as given by `Run`.
    pub attempt: u32,
    /// Its note.
    pub applied: Applied,
}
