//! Rows as a table for people, or as one JSON object per line.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::units::{show_bytes, show_number};

/// Prints rows, each a JSON object: `columns` and their headings for people, all fields as JSON.
pub(crate) fn rows(
    output: &mut impl Write,
    json: bool,
    rows: &[Value],
    columns: &[(&str, &str)],
    none: &str,
) -> io::Result<()> {
    if json {
        return rows.iter().try_for_each(|row| writeln!(output, "{row}"));
    }
    if rows.is_empty() {
        return writeln!(output, "{none}");
    }
    writeln!(output, "{}", row_table(rows, columns))
}

/// The table of [`rows`].
fn row_table(rows: &[Value], columns: &[(&str, &str)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|(_, heading)| *heading));
    for row in rows {
        table.add_row(columns.iter().map(|(field, _)| cell(field, &row[field])));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A field as text. A name that ends in `bytes` holds a number of bytes.
fn cell(field: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => match (field.ends_with("bytes"), number.as_u64()) {
            (true, Some(bytes)) => show_bytes(bytes),
            _ if number.is_f64() => show_number(number.as_f64().unwrap_or_default()),
            // Process ids and the like: not a quantity, so not grouped.
            _ => number.to_string(),
        },
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => {
            values.iter().map(|value| cell("", value)).collect::<Vec<_>>().join(", ")
        }
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", cell(name, value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(json: bool, given: &[Value]) -> String {
        let mut output = Vec::new();
        let columns = [("id", "ID"), ("size_bytes", "SIZE"), ("copies", "COPIES")];
        rows(&mut output, json, given, &columns, "there is none").unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn people_see_a_table_and_scripts_see_lines() {
        let given = [
            json!({"id": "a", "size_bytes": 2048, "copies": ["worker-1", "worker-2"]}),
            json!({"id": "b", "size_bytes": 17, "copies": []}),
        ];
        let table = printed(false, &given);
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let words = |line: &[&str]| line.iter().filter(|w| !w.is_empty()).count();
        assert_eq!(lines.iter().map(|line| words(line)).collect::<Vec<_>>(), [3, 3, 3], "{table}");
        assert!(table.contains("2.0 KiB") && table.contains("worker-1, worker-2"));
        let json = printed(true, &given);
        assert_eq!(json.lines().count(), 2);
        assert_eq!(serde_json::from_str::<Value>(json.lines().next().unwrap()).unwrap(), given[0]);
    }

    #[test]
    fn nothing_is_said_for_people_only() {
        assert_eq!(printed(false, &[]), "there is none\n");
        assert_eq!(printed(true, &[]), "");
    }
}
