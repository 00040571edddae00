//! The sans-IO scheduling cores of rdist.
//!
//! Two state machines decide where and when work runs: [`local::LocalCore`] on every worker and
//! [`cluster::ClusterCore`] on the head. Both have the shape of quinn-proto: `handle(now, event)`,
//! `handle_timeout(now)`, `poll_action()`, `poll_timeout()`. Neither reads a clock, opens a file or
//! a socket, or draws a random number that its caller did not seed; the same events give the same
//! actions, so that a seed replays a failure.
//!
//! ```text
//!  program in an executor           worker                           head
//!   submit, put ──LocalEvent──► ┌───────────┐ ──ToHead: spilled──► ┌─────────────┐
//!                               │ LocalCore │                      │ ClusterCore │
//!   run ◄───────LocalAction──── └───────────┘ ◄─FromHead: assigned └─────────────┘
//!                                  ▲    │
//!          PeerMessage: outcomes, calls, references, places of values
//!                                  │    ▼
//!                               other workers
//! ```
//!
//! # How work flows on a worker
//!
//! A task comes from a program here and is owned here: this worker keeps its specification, its
//! results, and the count of who refers to them. It waits until its dependencies are readable
//! here, then for resources, then runs; the head hears nothing of it. A task that this worker can
//! never run, or that asks to run elsewhere, waits until its dependencies exist and is then spilled
//! to the head, which assigns it to a worker; what merely queues is spilled when the head sees room
//! elsewhere and asks. Whoever ran a task tells its owner; a loss (of an executor, of a worker) is
//! a reason to try again, a failure of the task itself is not, and what depends on a failed task
//! fails with that first error.
//!
//! # How values live
//!
//! A value has one owner. Executors, tasks, other values that contain its reference, borrowing
//! workers and supervised actors hold it; when the last lets go, every copy is freed. A borrowing
//! worker registers once, whatever happens inside it, and messages that could let an owner drop a
//! reference too early wait until a borrower is registered ([`local`], `peers`). A value whose last
//! copy is lost is made again from the specification of its task, and so is what that needs. A task
//! that runs again on another worker submits its children anew, owned by that worker; what it finds
//! there of theirs is another owner's, and is made again too. What a task put is owned where it
//! ran; when that worker is lost, the task's owner runs it again as soon as somebody needs the
//! value, and who knew the former owner follows the new one (`local::remake`). A value that was put
//! with replicas lies on several workers, which have it even when its owner is lost.
//!
//! # What holds at all times
//!
//! Invariants have names; `check_invariants()` asserts them, and tests call it after every event.
//!
//! | name | where it is defined | about |
//! |---|---|---|
//! | LC-1 | `local::invariants` | an event's consequences are all drawn before `handle` returns |
//! | TG-1 to TG-4 | `task::table` | tasks, the queue, executors and dependencies agree |
//! | RL-1 | `resource::ledger` | what is free and what is held make the worker's total |
//! | GP-1 | `resource::gpus` | GPUs that are free and those that processes hold make whole ones |
//! | RF-1 to RF-3 | `object::entry` | every holder is counted, on the right side |
//! | OB-1 | `object::entry` | copies and the workers that have them agree |
//! | LG-1 | `local::lodgers` | values that lie here for several owners are here |
//! | RP-1 | `local::replicas` | keepers of replicated objects are listed once |
//! | ST-1 | `local::stream` | a stream holds the items that its consumer has not taken |
//! | TM-1 | `local::retry` | timers of limits and pauses belong to tasks |
//! | LN-1 | `object::lineage` | specifications are kept while, and only while, they are needed |
//! | LN-2 | `local::remake` | what may be made again for a dead owner is borrowed |
//! | AC-1, AC-2 | `actor` | actors are where their executor says; calls keep their order |
//! | PG-1 to PG-3 | `group` | bundles pay for what is in them; groups are whole or being placed |
//! | CK-1, CK-2 | `checkpoint` | saved states are kept while they are of use |
//!
//! # What is left to others
//!
//! Values' bytes, processes, links and time belong to the runtime. A link between two living
//! processes delivers in order and once ([`message`]); a lost worker never comes back under its id.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub(crate) mod actor;
pub mod checkpoint;
pub mod cluster;
mod dense;
mod few;
pub(crate) mod group;
pub mod hash;
pub mod id;
pub mod local;
pub mod message;
pub(crate) mod object;
pub mod outcome;
pub mod placement;
pub(crate) mod quota;
pub mod resource;
pub(crate) mod share;
pub mod spec;
pub(crate) mod task;
pub mod time;
