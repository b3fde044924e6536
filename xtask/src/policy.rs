//! Every direct dependency has a line in deny.toml that says what it is for.
//!
//! The lines are comments, `#   name: reason`, so that cargo-deny reads the same file.
//! In: the packages and the text of deny.toml. Out: one line per dependency without a reason, and per reason
//! without a dependency. Never: judges licences or advisories; cargo-deny does.

use std::collections::{BTreeMap, BTreeSet};

use crate::metadata::Package;

/// What is missing and what is too much.
pub fn breaches(packages: &[Package], deny: &str) -> Vec<String> {
    let reasons = reasons(deny);
    let all = packages.iter().flat_map(|package| &package.dependencies);
    let used: BTreeSet<&str> =
        all.filter(|dependency| !dependency.ours).map(|dependency| dependency.name.as_str()).collect();
    let missing = used.iter().filter(|name| !reasons.contains_key(**name));
    let idle = reasons.keys().filter(|name| !used.contains(**name));
    missing
        .map(|name| format!("deny.toml gives no reason for {name}"))
        .chain(idle.map(|name| format!("deny.toml gives a reason for {name}, which nothing uses")))
        .collect()
}

/// The reasons by name: `#   name: reason`, three spaces or more.
fn reasons(deny: &str) -> BTreeMap<&str, &str> {
    let lines = deny.lines().filter_map(|line| line.strip_prefix("#   "));
    let pairs = lines.filter_map(|line| line.trim().split_once(": "));
    pairs.filter(|(name, reason)| !name.contains(' ') && reason.len() > 10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    #[test]
    fn dependencies_and_reasons_must_match() {
        let text = r#"{"packages": [{"name": "a", "manifest_path": "/w/a/Cargo.toml", "dependencies": [
            {"name": "bytes", "kind": null}, {"name": "proptest", "kind": "dev"}, {"name": "base", "path": "/w/base"}]}]}"#;
        let packages = metadata::parse(text).expect("metadata").packages;
        let complete = "#   bytes: shared buffers without copies\n#   proptest: random cases that shrink\n";
        assert_eq!(breaches(&packages, complete), Vec::<String>::new());
        assert_eq!(breaches(&packages, "#   bytes: shared buffers without copies\n").len(), 1);
        assert_eq!(breaches(&packages, &complete.replace("shared buffers without copies", "why")).len(), 1);
        assert_eq!(
            breaches(&packages, &format!("{complete}#   tokio: an async runtime for HTTP\n")).len(),
            1
        );
    }
}
