//! Writes published documents of made-up rooms for the audits' tests: folders `good-…` and `bad-…`.

#[path = "../src/room/audit/sample.rs"]
mod sample;

use std::path::PathBuf;

use sample::{CHEATS, Story, write};

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| std::io::Error::other("usage: room_bundle FOLDER"))?;
    let good = Story {
        people: 300,
        late: &[20, 0, 7],
        ..Story::default()
    };
    write(&folder.join("good-plain"), Story { late: &[], ..good })?;
    write(&folder.join("good-late"), good)?;
    write(
        &folder.join("good-troubled"),
        Story {
            troubled: true,
            people: 257,
            ..good
        },
    )?;
    write(
        &folder.join("good-alone"),
        Story {
            people: 1,
            late: &[1],
            ..good
        },
    )?;
    write(
        &folder.join("good-empty"),
        Story {
            people: 0,
            late: &[3],
            ..good
        },
    )?;
    for cheat in CHEATS {
        let name = format!("bad-{cheat:?}").to_lowercase();
        write(
            &folder.join(name),
            Story {
                cheat: Some(cheat),
                ..good
            },
        )?;
    }
    Ok(())
}
