//! What cargo knows about the workspace: its packages, where they are, and what they depend on.
//!
//! In: the output of `cargo metadata --no-deps`. Out: a list of packages.
//! Never: decides anything; `floors` and `policy` do.

use std::path::{Path, PathBuf};

use crate::command;
use crate::json::Json;

/// What a dependency is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The crate itself, or its build script.
    Build,
    /// Its tests only.
    Test,
}

/// One dependency of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package's name, whatever it is called here.
    pub name: String,
    /// Whether it is one of this workspace.
    pub ours: bool,
    /// What for.
    pub need: Need,
}

/// One package of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The folder of its manifest.
    pub folder: PathBuf,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// The workspace.
#[derive(Debug)]
pub struct Workspace {
    /// Its packages.
    pub packages: Vec<Package>,
    /// Where builds go.
    pub target: PathBuf,
}

/// The root of this workspace: the folder above this crate.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Asks cargo.
pub fn workspace() -> Result<Workspace, String> {
    parse(&command::output(command::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?)
}

/// Reads cargo's answer.
pub fn parse(text: &str) -> Result<Workspace, String> {
    let read = Json::parse(text)?;
    let target = read.member("target_directory").text().unwrap_or("target").into();
    let packages = read.member("packages").items().iter().map(package).collect::<Result<Vec<_>, _>>()?;
    if packages.is_empty() {
        Err("cargo names no packages".into())
    } else {
        Ok(Workspace { packages, target })
    }
}

fn package(read: &Json) -> Result<Package, String> {
    let text = |name: &str| read.member(name).text().ok_or_else(|| format!("a package has no {name}"));
    let folder = Path::new(text("manifest_path")?).parent().map(Path::to_path_buf).unwrap_or_default();
    let dependencies =
        read.member("dependencies").items().iter().map(dependency).collect::<Result<Vec<_>, _>>()?;
    Ok(Package { name: text("name")?.to_string(), folder, dependencies })
}

fn dependency(read: &Json) -> Result<Dependency, String> {
    let name = read.member("name").text().ok_or("a dependency has no name")?.to_string();
    let need = if read.member("kind").text() == Some("dev") { Need::Test } else { Need::Build };
    Ok(Dependency { name, ours: read.member("path").text().is_some(), need })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_packages_and_their_dependencies() {
        let read = parse(
            r#"{"target_directory": "/t", "packages": [{"name": "a", "manifest_path": "/w/a/Cargo.toml", "dependencies": [
                {"name": "b", "kind": null, "path": "/w/b"}, {"name": "proptest", "kind": "dev"}]}]}"#,
        )
        .expect("metadata");
        let package = &read.packages[0];
        assert_eq!((package.name.as_str(), package.folder.as_path()), ("a", Path::new("/w/a")));
        assert_eq!(package.dependencies[0], Dependency { name: "b".into(), ours: true, need: Need::Build });
        assert_eq!(
            package.dependencies[1],
            Dependency { name: "proptest".into(), ours: false, need: Need::Test }
        );
        assert!(parse(r#"{"packages": []}"#).is_err());
    }
}
