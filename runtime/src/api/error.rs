//! The one error type of user code's calls into the library.

use std::time::Duration;

use rdist_scheduler::outcome::{Cause, TaskError};

use super::fault::{Fault, is_retryable};

/// What goes wrong for user code. Errors of tasks come back as [`Error::Task`], with the task
/// that failed first and why.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The value will never be there: its task failed, or it was lost.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The wait took longer than allowed; the object may still become ready.
    #[error("not ready after {0:?}; wait longer, or look with `rdist explain` what it waits for")]
    Timeout(Duration),
    /// The running task was cancelled while it waited.
    #[error("this task was cancelled")]
    Cancelled,
    /// Bytes that are no value of the wanted type.
    #[error("the bytes of {what} are no {wanted}: {reason}")]
    Decode {
        /// Which value.
        what: String,
        /// The Rust type.
        wanted: &'static str,
        /// What the check found.
        reason: String,
    },
    /// A value that cannot be archived.
    #[error("a {what} cannot be archived: {reason}")]
    Encode {
        /// The Rust type.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The object store has no room.
    #[error("the object store cannot take {bytes} bytes: {reason}")]
    StoreFull {
        /// How many bytes were wanted.
        bytes: u64,
        /// Why, and what to do.
        reason: String,
    },
    /// No actor has the name.
    #[error("there is no actor named `{0}`: it was never made, has ended, or has another name")]
    NoSuchActor(String),
    /// The call needs a running task.
    #[error(
        "not inside a task: call this from a driver, a task or an actor's method, or pass the \
         Context to the thread that needs it"
    )]
    NotInTask,
    /// A request that breaks a limit.
    #[error("{0}")]
    Refused(String),
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether a task that failed was cancelled, or the present task was.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Task(TaskError { cause: Cause::Cancelled, .. }))
    }
}

/// How the user code of a task ended where it did not return a value.
#[derive(Debug)]
pub enum Failure {
    /// Arguments that do not fit the function, a function that does not exist.
    Refused(String),
    /// The code returned an error that it made.
    Returned(String),
    /// The same, and the submitter's predicate wants another try.
    Retryable(String),
    /// The code passed on an error of the library, with the origin in it.
    Passed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Passed(error)
    }
}

/// Turns the `E` of a user's `Result<T, E>` into text, by whichever of the two traits below fits.
/// The macros call `(&Thrown(error)).failure()`: method look-up finds the impl for errors
/// first, and the one for anything that displays after one more reference.
#[derive(Debug)]
pub struct Thrown<E>(pub E);

/// For `E: std::error::Error`.
pub trait FailureOfError {
    /// The failure.
    fn failure(&self) -> Failure;
}

/// For everything else that displays itself, such as `String` and `anyhow::Error`.
pub trait FailureOfDisplay {
    /// The failure.
    fn failure(&self) -> Failure;
}

impl<E: std::error::Error + 'static> FailureOfError for Thrown<E> {
    fn failure(&self) -> Failure {
        let any: &dyn std::any::Any = &self.0;
        if let Some(error) = any.downcast_ref::<Error>() {
            let is_final = error.is_cancelled() || matches!(error, Error::Task(_));
            return match error.to_string() {
                text if !is_final && is_retryable(&Fault::error(any, &text)) => {
                    Failure::Retryable(text)
                }
                _ => Failure::Passed(error.clone()),
            };
        }
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(cause) = source {
            // Many errors already show their source; saying it twice helps nobody.
            let line = cause.to_string();
            if !text.contains(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            source = cause.source();
        }
        returned(any, text)
    }
}

impl<E: std::fmt::Display + 'static> FailureOfDisplay for &Thrown<E> {
    fn failure(&self) -> Failure {
        returned(&self.0, format!("{:#}", self.0))
    }
}

fn returned(error: &dyn std::any::Any, text: String) -> Failure {
    if is_retryable(&Fault::error(error, &text)) {
        Failure::Retryable(text)
    } else {
        Failure::Returned(text)
    }
}

/// Keeps an error text within `limit` bytes by leaving out its middle.
pub(crate) fn shorten(text: String, limit: usize) -> String {
    const GAP: &str = "\n... (shortened) ...\n";
    if text.len() <= limit {
        return text;
    }
    let half = (limit - GAP.len()) / 2;
    let is_between = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=half).rev().find(is_between).unwrap_or(0);
    let tail = (text.len() - half..=text.len()).find(is_between).unwrap_or(text.len());
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_sources_and_their_origin() {
        let parse = "x".parse::<u64>().unwrap_err();
        assert!(matches!(Thrown(parse).failure(), Failure::Returned(_)));
        let text = String::from("no luck");
        let failure = (&Thrown(text)).failure();
        assert!(matches!(failure, Failure::Returned(text) if text == "no luck"));
        let passed = Thrown(Error::Cancelled).failure();
        assert!(matches!(passed, Failure::Passed(Error::Cancelled)));
    }

    #[test]
    fn long_texts_lose_their_middle() {
        let text = format!("{}ä{}", "a".repeat(200), "b".repeat(200));
        let short = shorten(text, 101);
        assert!(short.len() <= 101 && short.starts_with("aaa") && short.ends_with("bbb"));
        assert!(short.contains("shortened"));
    }
}
