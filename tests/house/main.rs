//! Rules about the code itself: floors, sizes, and what no file may say. Each checker is first tried on something bad.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which floor a crate stands on (ARCHITECTURE.md). It may use only what lies below.
const FLOORS: [(&str, u8); 14] = [
    ("aig-domain", 0),
    ("aig-fetch", 1),
    ("aig-store", 2),
    ("aig-queue", 2),
    ("aig-cache", 2),
    ("aig-files", 2),
    ("aig-providers", 2),
    ("aig-tasks", 3),
    ("aig-inference", 3),
    ("aig-platform", 4),
    ("aig-api", 5),
    ("aig-worker", 5),
    ("aig-scheduler", 5),
    ("aigateway", 6),
];
/// Beside the house: nothing in it may use them, except in tests.
const BESIDE: [&str; 2] = ["aig-testkit", "aig-bench"];

const LONG: usize = 600;
const MEDIAN: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that git knows or would add.
fn files(pattern: &str) -> Vec<PathBuf> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard", pattern];
    let listed = Command::new("git").args(args).current_dir(root()).output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().map(|line| root().join(line)).filter(|path| path.exists()).collect()
}

/// What stands on the wrong floor: (crate, what it uses).
fn breaches(uses: &[(String, Vec<String>)]) -> Vec<(String, String)> {
    let floors: HashMap<&str, u8> = FLOORS.into_iter().collect();
    let mut found = Vec::new();
    for (name, used) in uses.iter().filter(|(name, _)| !BESIDE.contains(&name.as_str())) {
        for other in used.iter().filter(|other| other.starts_with("aig")) {
            let fine = match (floors.get(name.as_str()), floors.get(other.as_str())) {
                (Some(own), Some(other)) => other < own,
                _ => false,
            };
            if !fine {
                found.push((name.clone(), other.clone()));
            }
        }
    }
    found
}

#[test]
fn crates_use_only_the_floors_below() {
    let bad = |name: &str, used: &str| breaches(&[(name.to_owned(), vec![used.to_owned()])]).len();
    assert_eq!(bad("aig-domain", "aig-store"), 1);
    assert_eq!(bad("aig-store", "aig-queue"), 1, "neighbours do not know each other");
    assert_eq!(bad("aig-worker", "aig-testkit"), 1);
    assert_eq!(bad("aig-new", "aig-domain"), 1, "a new crate needs a floor");
    assert_eq!(bad("aig-worker", "aig-tasks"), 0);

    let args = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let metadata = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let uses: Vec<(String, Vec<String>)> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            (
                text(&package["name"]),
                all.filter(|used| used["kind"].is_null()).map(|used| text(&used["name"])).collect(),
            )
        })
        .collect();
    assert_eq!(uses.len(), FLOORS.len() + BESIDE.len());
    assert_eq!(breaches(&uses), []);
}

#[test]
fn files_stay_short_and_say_what_they_are() {
    let mut lengths = Vec::new();
    for path in files("*.rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let length = text.lines().count();
        assert!(length <= LONG, "{} has {length} lines; the wall is {LONG}", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it is", path.display());
        lengths.push(length);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(lengths.len() > 50 && median <= MEDIAN, "{} files, median {median}", lengths.len());
    let main = std::fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(main.lines().count() <= 60, "src/main.rs is longer than 60 lines");
}

#[test]
fn every_crate_keeps_the_lints_of_the_house() {
    for path in files("*Cargo.toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{}", path.display());
    }
    assert!(std::fs::read_to_string(root().join("Cargo.toml")).unwrap().contains("unsafe_code = \"forbid\""));
}

/// Whether one of the licences that `expression` offers is among the `allowed`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    let all_of = |offer: &str| offer.split(" AND ").all(|one| allowed.iter().any(|known| known == one.trim()));
    plain.split(" OR ").any(all_of)
}

#[test]
fn dependencies_are_what_deny_toml_allows() {
    let rules: toml::Table = std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let allowed: Vec<String> = rules["licenses"]["allow"].as_array().unwrap().iter().map(text).collect();
    assert!(is_allowed("MIT OR GPL-3.0", &allowed) && is_allowed("(MIT OR Apache-2.0) AND ISC", &allowed));
    assert!(!is_allowed("GPL-3.0", &allowed) && !is_allowed("MIT AND GPL-3.0", &allowed));
    let banned: Vec<String> = rules["bans"]["deny"].as_array().unwrap().iter().map(|ban| text(&ban["crate"])).collect();
    assert!(banned.len() >= 3);

    // Those of this platform: what others need was perhaps never downloaded.
    let version = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let args = ["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host];
    let metadata = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.iter().any(|other| other == name), "{name} is banned by deny.toml");
        let license = package["license"].as_str().unwrap_or("none");
        assert!(is_allowed(license, &allowed), "{name} has the licence {license}, which deny.toml does not allow");
    }
    assert!(packages.len() > 100, "{}", packages.len());
}

/// Lines that speak of places outside the project.
fn outside(text: &str) -> Vec<String> {
    let places = [
        ["..", "shared"].join("/") + "/design",
        [".", "library"].concat(),
        ["/wo", "rk/"].concat(),
        ["crates", "io/api"].join("."),
    ];
    text.lines().filter(|line| places.iter().any(|place| line.contains(place.as_str()))).map(str::to_owned).collect()
}

#[test]
fn no_file_depends_on_a_place_outside() {
    assert_eq!(outside(&["see ../sh", "ared/design.md"].concat()).len(), 1);
    for path in files("*") {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        assert_eq!(outside(&text), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn architecture_points_at_what_is_there() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let contributing = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let mut seen = 0;
    for place in [text, contributing].concat().split('`').skip(1).step_by(2) {
        let is_path = place.contains('/') && !place.contains(|c: char| " <$*{(".contains(c)) && !place.starts_with('/');
        if is_path && !place.contains("NNNN") {
            assert!(root().join(place).exists(), "`{place}` is not there");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
