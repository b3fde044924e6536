//! A node's status as a table.

use std::fmt::Write;

use serde_json::Value;

const COLUMNS: [&str; 8] =
    ["vhost", "name", "ready", "unacked", "consumers", "enqueued", "handed_out", "settled"];

/// The status for a person.
pub fn table(status: &Value) -> String {
    let mut text = String::new();
    let ready = if status["ready"] == true { "ready" } else { "NOT ready" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "waystation {}  node {}  {ready}", plain(&status["version"]), status["node"]);
    for reason in items(&status["reasons"]) {
        let _ = writeln!(text, "  {}", plain(reason));
    }
    for shard in items(&status["shards"]) {
        let _ = writeln!(text, "\nshard {}", shard["shard"]);
        let figures = [&shard["gauges"], &shard["counters"]];
        for (name, value) in figures.into_iter().filter_map(Value::as_object).flatten() {
            let _ = writeln!(text, "  {name:<36} {}", figure(value));
        }
    }
    let queues: Vec<Vec<String>> = items(&status["queues"])
        .map(|queue| COLUMNS.iter().map(|name| plain(&queue[*name])).collect())
        .collect();
    if !queues.is_empty() {
        text.push('\n');
        rows(&mut text, &queues);
    }
    text
}

fn rows(text: &mut String, queues: &[Vec<String>]) {
    let head: Vec<String> = COLUMNS.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
    let all = || std::iter::once(&head).chain(queues);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    for row in all() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Names stand left, numbers right.
            let _ = match column {
                0 | 1 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A number as people write it: whole ones without a fraction.
fn figure(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() != 0.0 => format!("{number:.2}"),
        Some(number) if value.is_f64() => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_shows_its_reasons_figures_and_queues() {
        let status = serde_json::json!({
            "version": "1.2.3", "node": 1, "ready": false, "reasons": ["shard 0: no leader"],
            "shards": [{ "shard": 0, "gauges": { "connections": 2.0, "share": 1.0389 }, "counters": { "confirmed": 7 } }],
            "queues": [{
                "vhost": "/", "name": "orders", "ready": 12, "unacked": 0, "consumers": 1, "enqueued": 12,
                "handed_out": 0, "settled": 0,
            }],
        });
        let text = table(&status);
        assert!(text.starts_with("waystation 1.2.3  node 1  NOT ready\n  shard 0: no leader\n"), "{text}");
        assert!(
            text.contains("  connections                          2\n") && text.contains(" 7\n"),
            "{text}"
        );
        assert!(text.contains(" 1.04\n"), "{text}");
        assert!(text.contains("VHOST  NAME    READY"), "{text}");
        assert!(text.contains("/      orders     12"), "{text}");
    }
}
