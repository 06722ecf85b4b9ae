//! Runs the tables in `tests/scenarios`: one owner, one ledger, asks in plain words. `README.txt` there has the words.

#[path = "simulation/ledger.rs"]
#[expect(
    dead_code,
    reason = "the simulation uses all of the ledger, the tables most of it"
)]
mod ledger;
#[path = "scenarios/stage.rs"]
mod stage;
#[path = "scenarios/words.rs"]
mod words;

use std::path::Path;

fn run_table(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/scenarios")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("the table is there");
    let mut stage = None;
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let place = format!("{name}:{}: {line}", number + 1);
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line.strip_prefix("scenario: ") {
            if let Some(finished) = stage.replace(stage::Stage::new(title)) {
                stage::Stage::end(finished);
            }
            count += 1;
            continue;
        }
        let stage = stage.as_mut().expect("a table begins with a scenario");
        if let Err(complaint) = words::perform(stage, line) {
            panic!("{place}\n  {complaint}\n  in: {}", stage.title);
        }
    }
    stage::Stage::end(stage.expect("a table has a scenario"));
    assert!(count > 1, "{name} has {count} scenarios");
}

macro_rules! tables {
    ($($test:ident = $file:literal;)+) => {
        $(#[test] fn $test() { run_table($file); })+

        #[test]
        fn every_table_is_run() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
            let mut found: Vec<String> = std::fs::read_dir(folder)
                .expect("the folder is there")
                .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
                .filter(|name| name.ends_with(".txt") && name != "README.txt")
                .collect();
            found.sort();
            let mut run = vec![$($file.to_owned()),+];
            run.sort();
            assert_eq!(found, run);
        }
    };
}

tables! {
    places_are_given_once = "booking.txt";
    refusals_come_in_their_order = "refusals.txt";
    two_doses_are_one_booking = "two_doses.txt";
    holds_die_at_their_deadline = "holds.txt";
    doubt_is_never_an_answer = "unknown_outcomes.txt";
    an_owner_leaves_in_order = "drain_and_fence.txt";
    others_change_our_slots = "outside_changes.txt";
}
