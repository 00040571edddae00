//! A row as it is told: by the job that measures it, and by the command that shows it.

use serde_json::{Value, json};

use super::measure::Measured;
use super::memory::Peak;
use crate::units::show_bytes;

/// What a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Calls, tasks, objects: what the row's name says.
    Count,
    Gigabytes,
}

impl Unit {
    /// The field with a row's figure.
    fn field(self) -> &'static str {
        match self {
            Self::Count => "per_second",
            Self::Gigabytes => "gb_per_second",
        }
    }
}

/// The event that tells of a row; what does not apply is left out.
pub(super) fn event(name: &str, unit: Unit, measured: &Measured) -> Value {
    let Measured { rate, lowest, highest, p50, p99 } = *measured;
    let mut event = json!({
        "event": "bench_row", "row": name, unit.field(): rate,
        "lowest": lowest, "highest": highest,
    });
    for (field, value) in [("p50_us", p50), ("p99_us", p99)] {
        if let Some(value) = value {
            event[field] = json!(value);
        }
    }
    event
}

/// Says in a row what memory was taken at most.
pub(super) fn add_memory(event: &mut Value, peak: &Peak) {
    event["peak_memory_bytes"] = json!(peak.sum());
    event["peak_memory"] = json!({
        "driver": peak.driver, "worker": peak.worker, "executors": peak.executors,
    });
}

/// The same for people, where a row has it.
pub(super) fn show_memory(event: &Value) -> Option<String> {
    let bytes = |value: &Value| value.as_u64().map(show_bytes);
    let part = |part: &str| bytes(&event["peak_memory"][part]);
    Some(format!(
        "at most {} of memory: driver {}, worker {}, executors {}",
        bytes(&event["peak_memory_bytes"])?,
        part("driver")?,
        part("worker")?,
        part("executors")?,
    ))
}

/// A row's figure, in its unit per second.
pub(super) fn rate(event: &Value) -> Option<f64> {
    [Unit::Count, Unit::Gigabytes].iter().find_map(|unit| event[unit.field()].as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_that_scripts_rely_on() {
        let mut measured = Measured { rate: 2.5, lowest: 2.0, highest: 3.0, p50: None, p99: None };
        let bytes = event("put", Unit::Gigabytes, &measured);
        let wanted = json!({
            "event": "bench_row", "row": "put", "gb_per_second": 2.5, "lowest": 2.0,
            "highest": 3.0,
        });
        assert_eq!(bytes, wanted);
        assert_eq!(rate(&bytes), Some(2.5));
        (measured.p50, measured.p99) = (Some(1.0), Some(4.0));
        let calls = event("calls", Unit::Count, &measured);
        assert_eq!(calls["per_second"], 2.5);
        assert_eq!((&calls["p50_us"], &calls["p99_us"]), (&json!(1.0), &json!(4.0)));
    }

    #[test]
    fn memory_is_told_by_process() {
        let measured = Measured { rate: 1.0, lowest: 1.0, highest: 1.0, p50: None, p99: None };
        let mut row = event("tasks", Unit::Count, &measured);
        assert_eq!(show_memory(&row), None);
        add_memory(&mut row, &Peak { driver: 3 << 20, worker: 2 << 20, executors: 1 << 20 });
        assert_eq!(row["peak_memory_bytes"], 6 << 20);
        let shown = show_memory(&row).unwrap();
        assert!(shown.starts_with("at most 6.0 MiB") && shown.ends_with("executors 1.0 MiB"));
    }
}
