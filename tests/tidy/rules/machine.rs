//! The tree says nothing about the machine or the network it was written in.

use std::path::Path;

use crate::tree::{File, Finding};

/// In pieces, so that this file does not find itself.
const HOMES: [&str; 4] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/work", "space/"),
];

/// Top folders that every machine has; any other says where somebody works.
const STANDARD: [&str; 15] = [
    "bin", "boot", "dev", "etc", "lib", "mnt", "media", "opt", "proc", "run", "srv", "sys", "tmp",
    "usr", "var",
];

/// Names that only resolve inside somebody's network.
const PRIVATE_ENDS: [&str; 5] = [".internal", ".intranet", ".lan", ".corp", ".localdomain"];

/// Settings that point a package manager at somebody's mirror.
const MIRRORS: [&str; 4] = [
    concat!("index", "-url"),
    concat!("GOPR", "OXY"),
    concat!("find", "-links"),
    concat!("replace", "-with"),
];

/// Paths of the machine this runs on, and of homes in general.
pub(crate) struct Here(Vec<String>);

impl Here {
    pub(crate) fn of(root: &Path) -> Self {
        let own = root.display().to_string();
        let top = own
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        let mut paths: Vec<String> = HOMES.iter().map(ToString::to_string).collect();
        if !STANDARD.contains(&top) && !top.is_empty() {
            paths.push(format!("/{top}/"));
        }
        paths.push(own);
        Self(paths)
    }

    pub(crate) fn paths(&self, file: &File) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (number, line) in file.text.lines().enumerate() {
            for path in &self.0 {
                // In the middle of a longer path or an address it is not this machine's.
                let inside = |at: usize| {
                    let before = line[..at].chars().next_back();
                    before.is_some_and(|c| c.is_alphanumeric() || "._-~}*/".contains(c))
                };
                if line.match_indices(path.as_str()).any(|(at, _)| !inside(at)) {
                    findings
                        .push(file.finding(number, format_args!("a path of a machine: {path}")));
                }
            }
        }
        findings
    }
}

pub(crate) fn hosts(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Addresses in a crate's own tests are made up.
    let tests_begin = if file.is("rs") {
        file.tests().0
    } else {
        usize::MAX
    };
    for (number, line) in file.text.lines().enumerate() {
        let mut hosts = line
            .match_indices("://")
            .map(|(at, _)| host(&line[at + 3..]));
        let named = |host: &str| PRIVATE_ENDS.iter().any(|end| host.ends_with(end));
        if let Some(host) =
            hosts.find(|host| named(host) || number < tests_begin && is_private(host))
        {
            findings.push(file.finding(number, format_args!("a private host: {host}")));
        }
        if let Some(setting) = MIRRORS.iter().find(|setting| line.contains(*setting)) {
            findings.push(file.finding(number, format_args!("a package mirror: {setting}")));
        }
    }
    findings
}

/// The host of an address whose scheme has been cut off.
fn host(rest: &str) -> &str {
    let authority = rest
        .split(['/', '"', '\'', ' ', '`', ')', '>'])
        .next()
        .unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

fn is_private(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>()
        .is_ok_and(|address| address.is_private())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_machine_are_caught() {
        let here = Here::of(Path::new("/somewhere/odd"));
        for text in [
            concat!("see /ro", "ot/.cargo"),
            concat!("\"/ho", "me/ann/x\""),
            "cd /somewhere/else",
            "(/somewhere/odd)",
            "x=/somewhere/odd/target",
        ] {
            assert!(!here.paths(&File::new("a.md", text)).is_empty(), "{text}");
        }
        for text in [
            "https://example.org/somewhere/x",
            "services/somewhere/x",
            "/usr/bin/env",
            "/tmp/x",
        ] {
            assert_eq!(here.paths(&File::new("a.md", text)), [], "{text}");
        }
    }

    #[test]
    fn a_clone_in_a_standard_folder_forbids_only_itself() {
        let here = Here::of(Path::new("/tmp/clone"));
        assert!(!here.paths(&File::new("a.md", "/tmp/clone/x")).is_empty());
        assert_eq!(here.paths(&File::new("a.md", "/tmp/other")), []);
    }

    #[test]
    fn private_hosts_and_mirrors_are_caught() {
        for text in [
            concat!("https://crates.example", ".internal/x"),
            concat!("http://user:pw@10.1", ".2.3:80/"),
            concat!("https://192.168", ".0.7"),
            concat!("pip install --index", "-url x"),
            concat!("replace", "-with = \"x\""),
        ] {
            assert_eq!(hosts(&File::new("a.md", text)).len(), 1, "{text}");
        }
        for text in [
            "https://github.com/x",
            "http://127.0.0.1:2379",
            "http://a.b.svc.cluster.local:1",
        ] {
            assert_eq!(hosts(&File::new("a.md", text)), [], "{text}");
        }
    }
}
