//! What this binary does as a job's program, on the cluster: the rows of `rdist bench`, and the
//! commands of plain command jobs.
//!
//! ```text
//! commands   the driver of a plan: starts what may start, tries again, tells how it went
//! task       one command as a task: its files, its variables
//! child      the process: output, time limit, what it used
//! report     how it went
//! ```

mod child;
mod commands;
mod report;
mod task;

use rdist::prelude::*;

/// The first argument of a job that runs a plan.
pub(crate) const COMMANDS: &str = "commands";

/// Works for a worker that has started this process.
pub(crate) fn execute() -> std::process::ExitCode {
    main()
}

#[rdist::main]
fn main(cx: Driver) -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == COMMANDS).is_some() {
        return commands::run(&cx);
    }
    if arguments.next_if(|first| first == crate::bench::SCALE).is_some() {
        return crate::bench::measure_scale(&cx, arguments);
    }
    crate::bench::measure_rows(&cx, arguments)
}

/// Whether a shell would do nothing with this text but cut it into words.
pub(crate) fn is_plain(line: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || " -_./,:+@%".contains(c);
    // `A=1 program` sets a variable.
    line.chars().all(|c| is_plain(c) || c == '=')
        && line.split_whitespace().next().is_some_and(|first| !first.contains('='))
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn what_needs_a_shell_is_told_from_what_does_not() {
        for plain in ["true", "a -b --c=d ./e/f.txt 1,2", "convert  x.png "] {
            assert!(is_plain(plain), "{plain}");
        }
        let shells =
            ["", "  ", "a | b", "a; b", "A=1 b", "echo $X", "ls *", "ls ~", "a 'b'", "a\nb"];
        for shell in shells {
            assert!(!is_plain(shell), "{shell}");
        }
    }
}
