//! Thousands of small worlds with many owners, each from one seed. `cargo run -p inventory-core --example simulate -- SEED`
//! runs one of them again.

mod checker;
mod faults;
mod ledger;
mod people;
mod shell;
mod statements;
mod weather;
mod world;

use std::panic::catch_unwind;

/// Worlds in a test run: about ten seconds of work in a debug build.
const SEEDS: u64 = 2_000;
/// Threads that share them.
const THREADS: u64 = 2;

#[test]
fn no_world_oversells_loses_or_answers_twice() {
    let totals = std::thread::scope(|scope| {
        let part = |first: u64| {
            let mut total = world::Report::default();
            for seed in (first..SEEDS).step_by(usize::try_from(THREADS).expect("few")) {
                let Ok(report) = catch_unwind(|| world::run(seed)) else {
                    panic!("seed {seed} fails; see above");
                };
                total.answers += report.answers;
                total.done += report.done;
                total.epochs += report.epochs;
                total.reapplied += report.reapplied;
            }
            total
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || part(first)))
            .collect();
        let parts = threads
            .into_iter()
            .map(|it| it.join().expect("its seed is printed above"));
        parts.collect::<Vec<_>>()
    });
    // A simulation in which nothing happens proves nothing.
    let sum = |of: fn(&world::Report) -> u64| totals.iter().map(of).sum::<u64>() / SEEDS;
    assert!(sum(|it| it.done) > 20 && sum(|it| it.answers) > 100 && sum(|it| it.epochs) > 4);
    assert!(totals.iter().any(|it| it.reapplied > 0));
}

#[test]
fn a_seed_gives_the_same_world_each_time() {
    for seed in [1, 3, 16, 2_021] {
        assert_eq!(world::run(seed), world::run(seed), "seed {seed}");
    }
}
