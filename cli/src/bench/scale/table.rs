//! The figures of all sizes for people: a line for each figure, a column for each size, and how
//! the figure grows with the workers.

use serde_json::Value;

use super::plot::{Line, Panel};
use crate::units::show_number;

/// A figure of a row: its field, its name, and what one of its units is.
struct Figure {
    field: &'static str,
    name: &'static str,
    unit: f64,
}

const fn figure(field: &'static str, name: &'static str, unit: f64) -> Figure {
    Figure { field, name, unit }
}

const MB: f64 = 1e6;
const KB: f64 = 1e3;

/// Of clusters of processes.
const PROCESSES: [Figure; 11] = [
    figure("head_bytes", "head: memory, MB", MB),
    figure("head_idle_cpu_percent", "head: CPU when idle, %", 1.0),
    figure("head_idle_wakeups_per_second", "head: wake-ups per second when idle", 1.0),
    figure("worker_bytes", "worker: memory, MB", MB),
    figure("worker_idle_cpu_percent", "worker: CPU when idle, %", 1.0),
    figure("worker_idle_wakeups_per_second", "worker: wake-ups per second when idle", 1.0),
    figure("head_cpu_ms_per_1000_tasks", "head: CPU for 1,000 tasks placed, ms", 1.0),
    figure("tasks_per_second", "tasks placed by the head, per second", 1.0),
    figure("head_bytes_per_1000_waiting_tasks", "head: memory of 1,000 waiting tasks, kB", KB),
    figure("head_cpu_us_per_actor", "head: CPU for an actor, us", 1.0),
    figure("head_bytes_per_actor", "head: memory of an actor, kB", KB),
];

/// Of the head's core alone.
const CORE: [Figure; 8] = [
    figure("worker_bytes_in_head", "memory of a worker, kB", KB),
    figure("decision_us", "a task placed and ended, us", 1.0),
    figure("decision_us_behind_waiting_tasks", "the same behind many that wait, us", 1.0),
    figure("load_report_us", "a worker's report, us", 1.0),
    figure("spilled_task_us", "a task that has to wait, us", 1.0),
    figure("head_bytes_per_1000_waiting_tasks", "memory of 1,000 waiting tasks, kB", KB),
    figure("actor_us", "an actor placed, us", 1.0),
    figure("head_bytes_per_actor", "memory of an actor, kB", KB),
];

pub(super) fn print(rows: &[Value]) {
    print_kind(rows, "core", "the head's core alone, without links", &CORE);
    print_kind(rows, "processes", "clusters of processes on this machine", &PROCESSES);
}

fn print_kind(rows: &[Value], kind: &str, title: &str, figures: &[Figure]) {
    let rows: Vec<_> = rows.iter().filter(|row| row["kind"] == kind).collect();
    if rows.is_empty() {
        return;
    }
    print!("{:<42}", format!("{title}:"));
    rows.iter().for_each(|row| print!("{:>12}", workers(row)));
    println!("{:>16}", "per worker");
    for figure in figures {
        print!("{:<42}", figure.name);
        for row in &rows {
            let value = row[figure.field].as_f64().map(|value| value / figure.unit);
            print!("{:>12}", value.map_or_else(String::new, show_number));
        }
        let slope = slope(&points(&rows, figure));
        println!("{:>16}", slope.map_or_else(String::new, |slope| format!("{slope:+.6}")));
    }
    println!();
}

fn workers(row: &Value) -> String {
    row["workers"].as_f64().map_or_else(String::new, show_number)
}

/// Workers and the figure.
fn points(rows: &[&Value], figure: &Figure) -> Vec<(f64, f64)> {
    let point =
        |row: &&Value| Some((row["workers"].as_f64()?, row[figure.field].as_f64()? / figure.unit));
    rows.iter().filter_map(point).collect()
}

/// By how much the figure grows with each worker: least squares. `None` for fewer than two sizes.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let together: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (spread > 0.0).then(|| together / spread)
}

/// What is plotted: each figure over the workers, of processes and of the core.
pub(super) fn panels(rows: &[Value]) -> Vec<Panel> {
    let lines = |title: &str, fields: &[(&str, &str, &str)]| {
        let line = |(kind, field, label): &(&str, &str, &str)| {
            let rows: Vec<_> = rows.iter().filter(|row| row["kind"] == *kind).collect();
            let all = if *kind == "core" { &CORE[..] } else { &PROCESSES[..] };
            let figure = all.iter().find(|figure| figure.field == *field)?;
            let points = points(&rows, figure);
            (!points.is_empty()).then(|| Line { label: (*label).to_owned(), points })
        };
        Panel { title: title.to_owned(), lines: fields.iter().filter_map(line).collect() }
    };
    let panels = [
        lines(
            "memory, MB",
            &[("processes", "head_bytes", "head"), ("processes", "worker_bytes", "each worker")],
        ),
        lines(
            "CPU when idle, %",
            &[
                ("processes", "head_idle_cpu_percent", "head"),
                ("processes", "worker_idle_cpu_percent", "each worker"),
            ],
        ),
        lines(
            "head: CPU for 1,000 tasks, ms",
            &[
                ("processes", "head_cpu_ms_per_1000_tasks", "process"),
                ("core", "decision_us", "core alone"),
                ("core", "decision_us_behind_waiting_tasks", "core, many waiting"),
            ],
        ),
        lines(
            "head: CPU for an actor, us",
            &[
                ("processes", "head_cpu_us_per_actor", "process"),
                ("core", "actor_us", "core alone"),
            ],
        ),
    ];
    panels.into_iter().filter(|panel| !panel.lines.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line() {
        assert_eq!(slope(&[(1.0, 5.0), (11.0, 25.0), (101.0, 205.0)]), Some(2.0));
        assert_eq!(slope(&[(1.0, 5.0)]), None);
    }

    #[test]
    fn each_kind_has_its_lines() {
        let row = |kind, workers| {
            json!({
                "kind": kind, "workers": workers, "head_bytes": 8e6 + workers as f64 * 1e5,
                "decision_us": 2.0,
            })
        };
        let rows = [row("processes", 1), row("processes", 10), row("core", 1_000)];
        let panels = panels(&rows);
        let titles: Vec<_> = panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["memory, MB", "head: CPU for 1,000 tasks, ms"]);
        assert_eq!(panels[0].lines[0].points, [(1.0, 8.1), (10.0, 9.0)]);
        assert_eq!(panels[1].lines[0].points, [(1_000.0, 2.0)]);
    }
}
