//! The house: which crate stands on which floor, and what it may therefore import.
//!
//! A crate imports only from floors below, never sideways; floors 0 to 5 take third-party crates from a short list
//! and do no IO, start no threads and read no clock.
//! In: the workspace's packages and their sources. Out: one line per breach.
//! Never: looks at what crates do beyond that.
//!
//! ```text
//!  8  waystation
//!  7  sim  bench
//!  6  runtime
//!  5  shard
//!  4  broker
//!  3  replica
//!  2  commitlog  queue  topology  coordinator  auth  recordbatch  |  proto-amqp  proto-kafka
//!  1  model
//!  0  base
//! ```

use std::path::Path;

use crate::metadata::{Need, Package};
use crate::source::code_only;
use crate::tidy;

const FLOORS: [(&str, u8); 17] = [
    ("base", 0),
    ("model", 1),
    ("commitlog", 2),
    ("queue", 2),
    ("topology", 2),
    ("coordinator", 2),
    ("auth", 2),
    ("proto-amqp", 2),
    ("proto-kafka", 2),
    ("recordbatch", 2),
    ("replica", 3),
    ("broker", 4),
    ("shard", 5),
    ("runtime", 6),
    ("bench", 7),
    ("sim", 7),
    ("waystation", 8),
];

/// The highest floor without IO.
const PURE: u8 = 5;

/// Third-party crates that floors 0 to 5 may use; deny.toml says what for.
const PURE_CRATES: [&str; 16] = [
    "bytes",
    "crc-fast",
    "flate2",
    "foldhash",
    "hashbrown",
    "hmac",
    "lz4_flex",
    "pbkdf2",
    "protobuf",
    "raft",
    "ruzstd",
    "sha2",
    "slog",
    "smallvec",
    "snap",
    "subtle",
];

/// The one system call on these floors: where the memory of blocks comes from, huge pages are asked for. It neither waits
/// nor changes anything that can be read.
const MEMORY: (&str, &str) = ("base", "rustix");

/// What the sources of floors 0 to 5 may not name, and the last part of it where it is imported in braces.
const FORBIDDEN: [&str; 7] =
    ["std::fs", "std::net", "std::thread", "std::process", "std::env", "Instant::now", "SystemTime::now"];

fn floor_of(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// Every import that goes up, sideways or to a third party that is not allowed there.
pub fn import_breaches(packages: &[Package]) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in packages.iter().filter(|package| package.name != "xtask") {
        let Some(floor) = floor_of(&package.name) else {
            breaches.push(format!("{} stands on no floor: give it one in xtask/src/floors.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            match (dependency.ours, floor_of(&dependency.name)) {
                (true, Some(below)) if below < floor => {}
                (true, Some(other)) => breaches.push(format!(
                    "{} (floor {floor}) imports {} (floor {other}): only floors below may be imported",
                    package.name, dependency.name
                )),
                (true, None) => {
                    breaches.push(format!(
                        "{} imports {}, which stands on no floor",
                        package.name, dependency.name
                    ));
                }
                (false, _) if floor <= PURE && dependency.need == Need::Build => {
                    let names = (package.name.as_str(), dependency.name.as_str());
                    if !PURE_CRATES.contains(&names.1) && names != MEMORY {
                        breaches.push(format!(
                            "{} (floor {floor}) uses {}, which is not on the list for floors 0 to {PURE}",
                            package.name, dependency.name
                        ));
                    }
                }
                (false, _) => {}
            }
        }
    }
    breaches
}

/// Every place where the source of a pure crate names IO, threads or clocks.
pub fn purity_breaches(packages: &[Package]) -> Result<Vec<String>, String> {
    let mut breaches = Vec::new();
    for package in
        packages.iter().filter(|package| floor_of(&package.name).is_some_and(|floor| floor <= PURE))
    {
        for path in tidy::files(&package.folder.join("src"), &["rs"])? {
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            breaches.extend(impure(&path, &text));
        }
    }
    Ok(breaches)
}

fn impure(path: &Path, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        for name in FORBIDDEN.iter().filter(|name| names(line, name)) {
            found.push(format!("{}:{}: {name} has no place on floors 0 to {PURE}", path.display(), at + 1));
        }
    }
    for (line, name) in braced_imports(&code) {
        found.push(format!("{}:{line}: std::{{{name}}} has no place on floors 0 to {PURE}", path.display()));
    }
    found
}

/// Whether the line names that path and not a longer one that merely begins so.
fn names(line: &str, path: &str) -> bool {
    let part_of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    line.match_indices(path).any(|(at, _)| {
        let before = line.as_bytes()[..at].last().is_some_and(part_of_a_name);
        let after = line.as_bytes().get(at + path.len()).is_some_and(part_of_a_name);
        !before && !after
    })
}

/// Forbidden modules imported as `use std::{fs, …}`: their line and name.
fn braced_imports(code: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("std::{") {
        let inside = &code[at + "std::{".len()..];
        let (mut depth, mut first_of_item, mut item) = (1_u32, true, String::new());
        for letter in inside.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => first_of_item = true,
                ':' => first_of_item = false,
                _ if depth == 1 && first_of_item && !letter.is_whitespace() => item.push(letter),
                _ => {}
            }
            if (letter == ',' && depth == 1) || letter == ':' {
                note(&mut item, code, at, &mut found);
            }
        }
        note(&mut item, code, at, &mut found);
    }
    found
}

fn note(item: &mut String, code: &str, at: usize, found: &mut Vec<(usize, &'static str)>) {
    let modules = FORBIDDEN.iter().filter_map(|name| name.strip_prefix("std::"));
    if let Some(name) = modules.into_iter().find(|name| name == item) {
        found.push((code[..at].lines().count(), name));
    }
    item.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    fn house(crates: &[(&str, &[&str])]) -> Vec<String> {
        let dependency = |name: &&str| match name.strip_prefix('@') {
            Some(outside) => match outside.strip_prefix("dev:") {
                Some(test) => format!(r#"{{"name": "{test}", "kind": "dev"}}"#),
                None => format!(r#"{{"name": "{outside}", "kind": null}}"#),
            },
            None => format!(r#"{{"name": "{name}", "kind": null, "path": "/w/{name}"}}"#),
        };
        let packages: Vec<String> = crates
            .iter()
            .map(|(name, needs)| {
                let needs: Vec<String> = needs.iter().map(dependency).collect();
                format!(
                    r#"{{"name": "{name}", "manifest_path": "/w/{name}/Cargo.toml", "dependencies": [{}]}}"#,
                    needs.join(",")
                )
            })
            .collect();
        let text = format!(r#"{{"target_directory": "/t", "packages": [{}]}}"#, packages.join(","));
        import_breaches(&metadata::parse(&text).expect("metadata").packages)
    }

    #[test]
    fn imports_from_below_are_fine() {
        assert_eq!(
            house(&[
                ("base", &["@bytes"]),
                ("model", &["base"]),
                ("queue", &["base", "model", "@dev:proptest"]),
                ("replica", &["queue", "@raft"]),
                ("runtime", &["base", "@tokio"]),
                ("waystation", &["bench", "runtime"]),
                ("xtask", &["@anything"]),
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn upward_sideways_and_unknown_imports_are_named() {
        let breach = |of: &[(&str, &[&str])]| {
            let found = house(of);
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].clone()
        };
        assert!(breach(&[("queue", &["replica"])]).contains("queue (floor 2) imports replica (floor 3)"));
        assert!(breach(&[("queue", &["topology"])]).contains("queue (floor 2) imports topology (floor 2)"));
        assert!(breach(&[("base", &["base"])]).contains("imports base (floor 0)"));
        assert!(breach(&[("sim", &["bench"])]).contains("sim (floor 7) imports bench (floor 7)"));
        assert!(breach(&[("model", &["cellar"])]).contains("stands on no floor"));
        assert!(breach(&[("attic", &[])]).contains("attic stands on no floor"));
    }

    #[test]
    fn pure_floors_take_third_parties_from_the_list_only() {
        let found = house(&[("shard", &["@tokio"]), ("auth", &["@rand", "@sha2"]), ("runtime", &["@rand"])]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("shard (floor 5) uses tokio") && found[1].contains("auth (floor 2) uses rand")
        );
    }

    #[test]
    fn io_threads_and_clocks_are_found_in_code_only() {
        let lines = |text: &str| impure(Path::new("x.rs"), text).len();
        for wrong in [
            "use std::fs;",
            "use std::fs::File;",
            "let now = Instant::now();",
            "std::time::SystemTime::now()",
            "std::thread::spawn(f)",
            "use std::{collections::BTreeMap, fs};",
            "use std::{\n    fs::{File, read},\n    net,\n};",
            "std::env::var(\"X\")",
        ] {
            assert!(lines(wrong) >= 1, "{wrong}");
        }
        assert_eq!(lines("use std::{\n    fs::{File, read},\n    net,\n};"), 2);
        for right in [
            "// std::fs is not for us",
            "\"std::fs\"",
            "use std::{collections::BTreeMap, fmt};",
            "std::fsync_like()",
            "my_std::fs",
            "use std::{cell::{net, fs}, mem};",
        ] {
            assert_eq!(lines(right), 0, "{right}");
        }
    }

    #[test]
    fn this_workspace_keeps_to_its_floors() {
        let workspace = metadata::workspace().expect("cargo metadata");
        assert_eq!(import_breaches(&workspace.packages), Vec::<String>::new());
        assert_eq!(purity_breaches(&workspace.packages), Ok(Vec::new()));
    }
}
