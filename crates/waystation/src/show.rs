//! A node's status as a table.

use std::fmt::Write;

use serde_json::Value;

const QUEUE: [&str; 8] =
    ["vhost", "name", "ready", "unacked", "consumers", "enqueued", "handed_out", "settled"];
const PARTITION: [&str; 7] = ["vhost", "topic", "partition", "start", "end", "bytes", "consumers"];

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
    rows(&mut text, &QUEUE, &status["queues"]);
    rows(&mut text, &PARTITION, &status["partitions"]);
    text
}

/// One row for each item, below the names of its columns; nothing where there are no items.
fn rows(text: &mut String, columns: &[&str], of: &Value) {
    let found: Vec<Vec<String>> =
        items(of).map(|item| columns.iter().map(|name| plain(&item[*name])).collect()).collect();
    if found.is_empty() {
        return;
    }
    text.push('\n');
    let head: Vec<String> = columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
    let all = || std::iter::once(&head).chain(&found);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
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
            "partitions": [{
                "vhost": "/", "topic": "events", "partition": 3, "start": 5, "end": 17, "bytes": 900, "consumers": 0,
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
        assert!(text.contains("VHOST  TOPIC   PARTITION  START  END  BYTES  CONSUMERS"), "{text}");
        assert!(text.contains("/      events          3      5   17    900          0"), "{text}");
    }
}
