//! The descendants of a process, whatever process group or session they made for themselves.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal};

/// Ids of all living descendants of `root`, without `root`.
pub(super) fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process may end between the listing and the reading.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_of(&stat) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(id) = next.pop() {
        let mine = children.remove(&id).unwrap_or_default();
        found.extend(&mine);
        next.extend(mine);
    }
    found
}

/// Sends to a whole process group; an empty one is no error.
pub(super) fn signal_group(group: Pid, signal: Signal) {
    if let Err(error) = rustix::process::kill_process_group(group, signal) {
        tracing::trace!(%error, "the process group is empty");
    }
}

/// Sends to each; those that ended meanwhile are no error.
pub(super) fn signal_each(ids: &[u32], signal: Signal) {
    for pid in ids
        .iter()
        .filter_map(|id| Pid::from_raw(i32::try_from(*id).ok()?))
    {
        if let Err(error) = rustix::process::kill_process(pid, signal) {
            tracing::trace!(%error, "the descendant has ended");
        }
    }
}

/// `pid (name) state ppid …`, where the name may hold blanks and brackets.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse_the_parent() {
        assert_eq!(parent_of("12 (a) b (c)) S 34 12 12 0"), Some(34));
        assert_eq!(parent_of(""), None);
    }
}
