//! Keys that nobody knows, and what was probably meant.

use toml::{Table, Value};

/// A key and what may stand below it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The key's own name.
    pub name: &'static str,
    /// Keys of the table or of each table of the list below it; empty for plain values.
    pub below: &'static [&'static str],
}

/// A message for the first unknown key of `table`, if there is one.
pub fn unknown(table: &Table, known: &[Known]) -> Option<String> {
    let top: Vec<&str> = known.iter().map(|key| key.name).collect();
    for (key, value) in table {
        let Some(found) = known.iter().find(|known| known.name == key) else {
            return Some(told(key, key, &top, known));
        };
        let tables: Vec<&Table> = match value {
            Value::Table(table) => vec![table],
            Value::Array(items) => items.iter().filter_map(Value::as_table).collect(),
            _ => Vec::new(),
        };
        let mut below = tables.into_iter().flat_map(Table::keys);
        if let Some(stranger) =
            below.find(|key| !found.below.is_empty() && !found.below.contains(&key.as_str()))
        {
            return Some(told(&format!("{key}.{stranger}"), stranger, found.below, &[]));
        }
    }
    None
}

fn told(path: &str, key: &str, siblings: &[&str], known: &[Known]) -> String {
    // A key that belongs into a section is more often misplaced than misspelt.
    if let Some(section) = known.iter().find(|section| section.below.contains(&key)) {
        return format!("unknown key '{path}'; did you mean '{}.{key}'?", section.name);
    }
    match nearest(key, siblings) {
        Some(near) => format!("unknown key '{path}'; did you mean '{near}'?"),
        None => format!("unknown key '{path}'; known here: {}", siblings.join(", ")),
    }
}

/// The candidate that differs least, if it differs little.
fn nearest<'a>(key: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let near = candidates.iter().map(|candidate| (distance(key, candidate), *candidate)).min()?;
    (near.0 <= 1 + key.len() / 3).then_some(near.1)
}

/// Insertions, deletions and replacements from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested_and_nothing_far_fetched() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("lisen", &["listen", "limits"]), Some("listen"));
        assert_eq!(nearest("colour", &["listen", "limits"]), None);
    }
}
