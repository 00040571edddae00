//! The commands of a job for people: failures as they happen, a table in the end.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Event, rows};
use crate::units::{show_bytes, show_number, show_seconds};

/// Most rows of the table.
const MAX_ROWS: usize = 40;

const COLUMNS: [(&str, &str); 9] = [
    ("name", "TASK"),
    ("status", "STATE"),
    ("exit", "EXIT"),
    ("wall", "TIME"),
    ("user", "USER"),
    ("system", "SYSTEM"),
    ("memory", "MEMORY"),
    ("tries", "TRIES"),
    ("worker", "WORKER"),
];

/// How the commands of a job went.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// The first of those that ended well.
    well: Vec<Value>,
    succeeded: usize,
    /// The first of those that did not.
    others: Vec<Value>,
    not_succeeded: usize,
}

impl Commands {
    /// One has ended; what is to be said of it at once.
    pub(super) fn add(&mut self, command: &Event) -> Option<String> {
        let text = |name: &str| command.get(name).and_then(Value::as_str).unwrap_or_default();
        let (name, status, reason) = (text("name"), text("status"), text("reason"));
        match status {
            "succeeded" => {
                self.succeeded += 1;
                if self.well.len() < MAX_ROWS {
                    self.well.push(row(command));
                }
                None
            }
            "retried" => Some(format!("{name} failed and is tried again: {reason}")),
            _ => {
                self.not_succeeded += 1;
                if self.others.len() < MAX_ROWS {
                    self.others.push(row(command));
                }
                // Of what only follows from a failure, the table says enough.
                (status != "skipped").then(|| format!("{name} failed: {reason}"))
            }
        }
    }

    /// All of them if they are few, else those that did not end well.
    pub(super) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let all = self.succeeded + self.not_succeeded;
        if all == 0 {
            return Ok(());
        }
        let mut shown = self.others.clone();
        if all <= MAX_ROWS {
            shown.splice(0..0, self.well.iter().cloned());
        }
        if !shown.is_empty() {
            rows(out, false, &shown, &COLUMNS, "")?;
        }
        if shown.len() < all {
            let (well, count) = (self.succeeded as f64, all as f64);
            let (well, count) = (show_number(well), show_number(count));
            writeln!(out, "{well} of {count} tasks succeeded; --json shows each")?;
        }
        Ok(())
    }
}

fn row(command: &Event) -> Value {
    let number = |name: &str| command.get(name).and_then(Value::as_f64);
    let seconds = |name: &str| number(name).map(show_seconds);
    let signal = number("signal").map(|signal| format!("signal {signal}"));
    json!({
        "name": command.get("name"),
        "status": command.get("status"),
        "exit": number("exit_status").map(|status| status.to_string()).or(signal),
        "wall": seconds("seconds"),
        "user": seconds("user_seconds"),
        "system": seconds("system_seconds"),
        "memory": number("max_rss_bytes").map(|bytes| show_bytes(bytes as u64)),
        "tries": number("attempt").map(|attempt| attempt + 1.0),
        "worker": command.get("worker"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, status: &str, exit: i32) -> Event {
        let command = json!({
            "name": name, "status": status, "exit_status": exit, "attempt": 1, "seconds": 0.5,
            "user_seconds": 0.25, "system_seconds": 0.01, "max_rss_bytes": 3 << 20,
            "worker": "worker-1", "reason": format!("exit status {exit}"),
        });
        command.as_object().cloned().unwrap()
    }

    fn table(commands: &Commands) -> String {
        let mut out = Vec::new();
        commands.show(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn failures_are_said_at_once_and_all_are_in_the_table() {
        let mut commands = Commands::default();
        assert_eq!(table(&commands), "");
        assert_eq!(commands.add(&command("a", "succeeded", 0)), None);
        let said = commands.add(&command("b", "retried", 2)).unwrap();
        assert!(said.contains("b failed and is tried again: exit status 2"), "{said}");
        assert_eq!(commands.add(&command("b", "failed", 2)).unwrap(), "b failed: exit status 2");
        assert_eq!(commands.add(&command("c", "skipped", 0)), None);
        let table = table(&commands);
        for part in ["TASK", "0.50 s", "0.25 s", "3.0 MiB", "worker-1", "skipped"] {
            assert!(table.contains(part), "no {part} in {table}");
        }
        assert_eq!(table.matches("failed").count(), 1, "{table}");
    }

    #[test]
    fn of_many_only_those_that_did_not_succeed_have_a_row() {
        let mut commands = Commands::default();
        for index in 0..1_000 {
            let status = if index == 7 { "failed" } else { "succeeded" };
            commands.add(&command(&format!("work[{index}]"), status, 1));
        }
        let table = table(&commands);
        assert!(table.contains("work[7]") && !table.contains("work[6]"), "{table}");
        assert!(table.contains("999 of 1,000 tasks succeeded"), "{table}");
    }
}
