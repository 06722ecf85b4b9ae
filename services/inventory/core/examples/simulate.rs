//! Runs simulated worlds: `simulate [SEED] [COUNT]`. Prints each seed that fails, and a summary.

#[path = "../tests/simulation/checker.rs"]
mod checker;
#[path = "../tests/simulation/faults.rs"]
mod faults;
#[path = "../tests/simulation/ledger.rs"]
mod ledger;
#[path = "../tests/simulation/people.rs"]
mod people;
#[path = "../tests/simulation/shell.rs"]
mod shell;
#[path = "../tests/simulation/statements.rs"]
mod statements;
#[path = "../tests/simulation/weather.rs"]
mod weather;
#[path = "../tests/simulation/world.rs"]
mod world;

use std::panic::catch_unwind;
use std::process::ExitCode;

#[expect(
    clippy::print_stdout,
    reason = "a tool for the terminal: its output is what it is for"
)]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Ok(first), Ok(count)) = (
        arguments.next().unwrap_or(Ok(0)),
        arguments.next().unwrap_or(Ok(1)),
    ) else {
        println!("usage: simulate [SEED] [COUNT]");
        return ExitCode::from(64);
    };
    let mut failed = 0_u64;
    let mut last = world::Report::default();
    for seed in first..first.saturating_add(count) {
        if let Ok(report) = catch_unwind(|| world::run(seed)) {
            last = report;
        } else {
            failed += 1;
            println!("seed {seed} fails");
        }
    }
    println!("{count} worlds from seed {first}, {failed} failed; the last one: {last:?}");
    ExitCode::from(u8::from(failed > 0))
}
