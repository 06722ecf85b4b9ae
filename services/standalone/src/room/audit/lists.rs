//! The published lists of draw tickets, read in a stream: the first may have ten million lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use domain::place::{DrawTicket, Place};
use domain::room::list::{List, ListBuilder};
use domain::room::{Buckets, read_hex};

/// 32 hex digits and the end of the line.
const LINE: usize = 33;

/// Lists by bucket.
pub(super) struct Lists {
    files: BTreeMap<u32, PathBuf>,
}

// === impl Lists ===

impl Lists {
    /// Finds `tickets-{id}.txt` in a folder.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(|why| why.to_string())? {
            let path = entry.map_err(|why| why.to_string())?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.strip_prefix("tickets-")?.strip_suffix(".txt"));
            let Some(id) = id else { continue };
            let parsed = id
                .parse::<u32>()
                .ok()
                .filter(|parsed| parsed.to_string() == id);
            let parsed = parsed.ok_or_else(|| format!("tickets-{id}.txt is no bucket's list"))?;
            files.insert(parsed, path);
        }
        Ok(Self { files })
    }

    /// Buckets with a list.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.files.keys().copied()
    }

    /// Calls `then` for each ticket of a list, in its order.
    pub(super) fn each(
        &self,
        id: u32,
        mut then: impl FnMut(DrawTicket) -> Result<(), String>,
    ) -> Result<(), String> {
        let path = self
            .files
            .get(&id)
            .ok_or_else(|| format!("tickets-{id}.txt is missing"))?;
        let broken = |why: std::io::Error| format!("tickets-{id}.txt cannot be read: {why}");
        let mut file = BufReader::new(File::open(path).map_err(broken)?);
        let mut line = Vec::with_capacity(LINE);
        for number in 1u64.. {
            line.clear();
            if file.read_until(b'\n', &mut line).map_err(broken)? == 0 {
                break;
            }
            let mut bytes = [0; 16];
            let text = line
                .strip_suffix(b"\n")
                .and_then(|text| std::str::from_utf8(text).ok());
            text.and_then(|text| read_hex(text, &mut bytes).ok())
                .ok_or_else(|| format!("tickets-{id}.txt, line {number}, is no ticket"))?;
            then(DrawTicket(bytes))?;
        }
        Ok(())
    }

    /// A list's root and length.
    pub(super) fn read(&self, id: u32) -> Result<List, String> {
        self.build(id, ListBuilder::new())
    }

    /// The same, where a list is published.
    pub(super) fn published(&self, id: u32) -> Result<Option<List>, String> {
        if self.files.contains_key(&id) {
            self.read(id).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Every list has as many tickets as its bucket people, and nobody is in two.
    pub(super) fn late(&self, buckets: &Buckets) -> Result<String, String> {
        let mut seen = BTreeSet::new();
        let late: Vec<u32> = self.ids().filter(|id| *id > 0).collect();
        for id in &late {
            let bucket = buckets
                .get(*id)
                .ok_or_else(|| format!("bucket {id} has a list but was not closed"))?;
            let list = self.read(*id)?;
            super::same(&format!("the length of list {id}"), list.n, bucket.size)?;
            self.each(*id, |ticket| {
                let new = seen.insert(ticket);
                new.then_some(())
                    .ok_or_else(|| format!("a ticket of list {id} is in another list, too"))
            })?;
        }
        if !seen.is_empty() {
            self.each(0, |ticket| {
                let twice = seen.contains(&ticket);
                (!twice)
                    .then_some(())
                    .ok_or_else(|| "a ticket of list 0 is in another list, too".to_owned())
            })?;
        }
        Ok(format!("{} published, nobody is in two", late.len()))
    }

    /// The ticket's index in its bucket's list, proven against the root; `None` where no list is published.
    pub(super) fn prove(&self, place: &Place) -> Result<Option<Option<u64>>, String> {
        if !self.files.contains_key(&place.bucket) {
            return Ok(None);
        }
        let list = self.build(place.bucket, ListBuilder::proving(place.ticket))?;
        let proof = list
            .proof
            .filter(|proof| proof.holds(&place.ticket, list.n, &list.root));
        Ok(Some(proof.map(|proof| proof.index)))
    }

    fn build(&self, id: u32, mut list: ListBuilder) -> Result<List, String> {
        self.each(id, |ticket| {
            list.push(&ticket)
                .map_err(|why| format!("tickets-{id}.txt: {why}"))
        })?;
        Ok(list.finish())
    }
}
