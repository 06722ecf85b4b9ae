//! The audit must see each kind of cheating, or it is worth nothing.

use super::sample::{CHEATS, Cheat, Story, write};
use super::*;

const GOOD: Story = Story {
    people: 300,
    late: &[20, 0, 7],
    troubled: false,
    cheat: None,
};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Only the tests' own scratch files; what stays behind is the system's to sweep.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str, story: Story) -> Folder {
    let name = format!("doseline-audit-{}-{name}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    write(&folder.0, story).expect("writable");
    folder
}

fn findings(folder: &Folder) -> (Findings, Option<Proven>) {
    let mut findings = Findings::default();
    let proven = audit(&folder.0, &mut findings);
    (findings, proven)
}

#[test]
fn good_documents_hold_and_give_everybody_a_place() {
    let stories = [
        ("plain", Story { late: &[], ..GOOD }),
        ("late", GOOD),
        (
            "troubled",
            Story {
                troubled: true,
                ..GOOD
            },
        ),
        ("alone", Story { people: 1, ..GOOD }),
        (
            "empty",
            Story {
                people: 0,
                late: &[3],
                ..GOOD
            },
        ),
    ];
    for (name, story) in stories {
        let folder = folder(name, story);
        let (findings, proven) = findings(&folder);
        let bad: Vec<_> = findings
            .0
            .iter()
            .filter(|(_, found)| found.is_err())
            .collect();
        assert!(bad.is_empty(), "{name}: {bad:?}");
        let mut out = Vec::new();
        proven
            .expect("proven")
            .write_ordinals(&mut out)
            .expect("written");
        let out = String::from_utf8(out).expect("text");
        let people = story.people + story.late.iter().sum::<u64>();
        assert_eq!(out.lines().count() as u64, people, "{name}");
        for line in out.lines() {
            let parts: Vec<&str> = line.split(' ').collect();
            let (bucket, ordinal): (usize, u64) = (
                parts[0].parse().expect("a number"),
                parts[2].parse().expect("a number"),
            );
            let sizes: Vec<u64> = std::iter::once(story.people)
                .chain(story.late.iter().copied())
                .collect();
            let before: u64 = sizes[..bucket].iter().sum();
            assert!(
                (before..before + sizes[bucket]).contains(&ordinal),
                "{name}: {line}"
            );
        }
    }
}

#[test]
fn every_cheat_is_seen_by_the_check_it_belongs_to() {
    for cheat in CHEATS {
        let story = Story {
            cheat: Some(cheat),
            ..GOOD
        };
        let folder = folder(&format!("{cheat:?}"), story);
        let (findings, proven) = findings(&folder);
        let bad: Vec<&str> = findings
            .0
            .iter()
            .filter(|(_, found)| found.is_err())
            .map(|(name, _)| *name)
            .collect();
        let expected = match cheat {
            Cheat::Signature
            | Cheat::ForeignKey
            | Cheat::Purpose
            | Cheat::UnknownField
            | Cheat::Skipped
            | Cheat::Repeated
            | Cheat::Chain => "steps",
            Cheat::Seed | Cheat::SeedLate => "seed",
            Cheat::Beacon | Cheat::BeaconEarly | Cheat::FrozenLate => "beacon",
            Cheat::FinalSeed => "final seed",
            Cheat::Ghost | Cheat::Erased | Cheat::Unsorted => "list",
            Cheat::Sums | Cheat::Gap | Cheat::Replaced => "buckets",
            Cheat::Twice => "late lists",
            Cheat::Redrawn
            | Cheat::Rebucketed
            | Cheat::MovedBack
            | Cheat::Replayed
            | Cheat::OpenEarly => "rooms",
        };
        assert!(proven.is_none() || !bad.is_empty(), "{cheat:?} passed");
        assert!(bad.contains(&expected), "{cheat:?}: {:?}", findings.0);
    }
}

#[test]
fn a_ticket_is_told_its_place_and_a_stranger_none() {
    let folder = folder("ticket", GOOD);
    let proven = findings(&folder).1.expect("holds");
    let list = std::fs::read_to_string(folder.0.join("tickets-1.txt")).expect("published");
    let ticket = list.lines().nth(3).expect("twenty");
    let told = proven.place(ticket, 1).expect("listed");
    assert!(
        told.starts_with("ordinal 3") && told.contains("at index 3"),
        "{told}"
    );
    assert!(proven.place(ticket, 0).is_err(), "not in that list");
    assert!(proven.place(ticket, 9).is_err(), "never closed");
    assert!(proven.place("zz", 0).is_err());
}
