//! Rules for every file: not longer than 800 lines, a head that says what it owns, no notes to be done later,
//! no paths of somebody's machine.
//!
//! In: the files of the workspace. Out: one line per breach.
//! Never: enters build folders or hidden ones.

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;

/// Words that say that something is not finished, and paths of one machine. Put together here so that this file
/// does not name them itself.
const BANNED: [&str; 7] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK:"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
];

const TEXTS: [&str; 8] = ["rs", "py", "toml", "md", "sh", "txt", "ini", "yml"];

/// Every breach in the folder.
pub fn breaches(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for path in files(root, &TEXTS)? {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path);
        found.extend(in_file(shown, &text));
    }
    Ok(found)
}

fn in_file(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let code = matches!(extension, "rs" | "py");
    let lines = text.lines().count();
    if code && lines > LINES_MAX {
        found.push(format!("{}: {lines} lines, {LINES_MAX} at most", path.display()));
    }
    let headed = match extension {
        "rs" => text.starts_with("//!"),
        "py" => text.starts_with("\"\"\"") || text.starts_with("#!"),
        _ => true,
    };
    if !headed {
        found.push(format!("{}: no head that says what it owns", path.display()));
    }
    for (at, line) in text.lines().enumerate() {
        for word in BANNED.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{}: '{word}'", path.display(), at + 1));
        }
    }
    found
}

/// The files with one of these extensions, in order, hidden and built folders left out.
pub fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') || matches!(name.as_ref(), "target" | "waystation-data" | "__pycache__") {
            continue;
        }
        if entry.file_type().map_err(wrong)?.is_dir() {
            found.extend(files(&path, extensions)?);
        } else if path.extension().is_some_and(|own| extensions.iter().any(|known| own == *known)) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, text: &str) -> usize {
        in_file(Path::new(name), text).len()
    }

    #[test]
    fn each_rule_bites() {
        assert_eq!(count("a.rs", "//! Owns a thing.\nfn f() {}\n"), 0);
        assert_eq!(count("a.rs", "fn f() {}\n"), 1);
        assert_eq!(count("a.py", "\"\"\"Owns a thing.\"\"\"\n"), 0);
        assert_eq!(count("a.py", "import os\n"), 1);
        assert_eq!(count("a.rs", &format!("//! Head.\n{}", "\n".repeat(LINES_MAX))), 1);
        for word in BANNED {
            assert_eq!(count("a.md", &format!("here: {word}x")), 1, "{word}");
        }
    }
}
