//! Errors and panics of user code, as predicates see them that say whether to try again.
//!
//! A predicate runs in the process where the task failed, right after it, on the error itself; the
//! worker that owns the task counts and waits. Over processes a predicate is known by the hash of
//! its full name, as a task is.

use std::any::Any;
use std::fmt;

use super::context::Context;
use crate::executor::panic::guarded;
use crate::executor::registry::Body;

/// What ended a try of a task: the error that it returned, or its panic.
pub struct Fault<'a> {
    message: &'a str,
    error: Option<&'a dyn Any>,
}

impl<'a> Fault<'a> {
    pub(crate) fn error(error: &'a dyn Any, message: &'a str) -> Self {
        Self { message, error: Some(error) }
    }

    pub(crate) fn panic(message: &'a str) -> Self {
        Self { message, error: None }
    }

    /// The error as text, with its sources; of a panic its text, place and backtrace.
    pub fn message(&self) -> &str {
        self.message
    }

    /// Whether the code panicked.
    pub fn is_panic(&self) -> bool {
        self.error.is_none()
    }

    /// The error, if the task returned one of that very type: the `E` of its `Result<T, E>`.
    pub fn downcast_ref<E: 'static>(&self) -> Option<&E> {
        self.error.and_then(|error| error.downcast_ref())
    }
}

impl fmt::Debug for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message;
        f.debug_struct("Fault").field("message", &message).finish_non_exhaustive()
    }
}

/// A function with `#[rdist::predicate]`, or [`AnyError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no predicate for errors",
    note = "put #[rdist::predicate] on `fn name(fault: &Fault<'_>) -> bool`, or use `AnyError`"
)]
pub trait ErrorPredicate {
    /// Its name over processes.
    #[doc(hidden)]
    const ID: u64;
}

/// Accepts every error and every panic.
#[derive(Debug, Clone, Copy)]
pub struct AnyError;

impl ErrorPredicate for AnyError {
    const ID: u64 = 0;
}

/// Whether the running task's submitter wants another try after this.
pub(crate) fn is_retryable(fault: &Fault<'_>) -> bool {
    let Ok(cx) = Context::current() else { return false };
    match cx.running().error_predicate {
        None => false,
        Some(_) if cx.is_cancelled() => false,
        Some(AnyError::ID) => true,
        Some(id) => match cx.process().function(id) {
            // A predicate that panics accepts nothing.
            Some(Body::Predicate(body)) => guarded(|| body(fault)).unwrap_or(false),
            _ => false,
        },
    }
}
