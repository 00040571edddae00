//! Panics of user code become errors of its task, with text, place and backtrace.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::api::error::shorten;
use crate::wire::executor::MAX_ERROR_BYTES;

thread_local! {
    /// Depth of `guarded` on this thread.
    static GUARDS: Cell<u32> = const { Cell::new(0) };
    /// The last panic under a guard, in words.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs user code; a panic comes back in words.
pub(crate) fn guarded<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    install_hook();
    GUARDS.set(GUARDS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(code));
    GUARDS.set(GUARDS.get() - 1);
    result.map_err(|payload| {
        // `resume_unwind` skips the hook.
        let message = CAPTURED.take().unwrap_or_else(|| text_of(&*payload).to_owned());
        // A payload may panic when it is dropped, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        message
    })
}

fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDS.get() == 0 {
                return previous(info);
            }
            let message = describe(info);
            eprintln!("panicked: {}", message.lines().take(2).collect::<Vec<_>>().join(" "));
            let backtrace = frames_of_user(&Backtrace::force_capture().to_string());
            let whole = shorten(format!("{message}\n{backtrace}"), MAX_ERROR_BYTES);
            CAPTURED.set(Some(whole));
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let text = text_of(info.payload());
    match info.location() {
        Some(place) => format!("{text}\nat {place}"),
        None => text.to_owned(),
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(a panic without text)",
    }
}

/// Leaves out the machinery above the panic and below the task.
fn frames_of_user(backtrace: &str) -> String {
    let lines: Vec<&str> = backtrace.lines().collect();
    let is_frame = |line: &&str| {
        let line = line.trim_start();
        line.split(':').next().is_some_and(|n| !n.is_empty() && n.parse::<u32>().is_ok())
    };
    let position = |needle: &str| lines.iter().position(|line| line.contains(needle));
    let above = ["core::panicking::panic_fmt", "rust_begin_unwind", "begin_panic_handler"];
    let first = above.iter().filter_map(|name| position(name)).max().map_or(0, |at| {
        let rest = lines.iter().skip(at + 1).position(is_frame);
        rest.map_or(0, |rest| at + 1 + rest)
    });
    let below = ["rdist::executor::run::", "executor::panic::guarded", "AssertUnwindSafe"];
    let is_below = |line: &&str| below.iter().any(|name| line.contains(name));
    let len = lines[first..].iter().position(is_below).unwrap_or(lines.len() - first);
    lines[first..first + len].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlucky(number: u32) -> u32 {
        assert!(number != 13, "{number} is unlucky");
        number
    }

    #[test]
    fn a_panic_brings_its_text_place_and_frames() {
        assert_eq!(guarded(|| unlucky(12)), Ok(12));
        let message = guarded(|| unlucky(13)).unwrap_err();
        assert!(message.starts_with("13 is unlucky\nat "), "{message}");
        assert!(message.contains("panic.rs:"), "{message}");
        assert!(message.contains("unlucky"), "{message}");
        assert!(!message.contains("rust_begin_unwind"), "{message}");
        let odd = guarded(|| std::panic::panic_any(7)).unwrap_err();
        assert!(odd.starts_with("(a panic without text)"), "{odd}");
    }
}
