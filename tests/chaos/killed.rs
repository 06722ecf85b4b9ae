//! An owner is killed with -9, twenty times: how long until its clinics book again.

use std::time::Duration;

use system_tests::town::{Options, Town};

const KILLS: usize = 20;
/// The bound that every single kill has to hold.
const BOOKS_AGAIN_WITHIN: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::print_stdout,
    reason = "the distribution is what a reader of this test wants"
)]
async fn a_killed_owners_clinics_book_again_within_four_seconds_twenty_times() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), Options::with_people(8 * KILLS)).await?;
    let mut took = Vec::with_capacity(KILLS);
    for kill in 0..KILLS {
        took.push(town.kill_owner(0, kill, BOOKS_AGAIN_WITHIN).await?);
    }
    took.sort_unstable();
    let millis: Vec<_> = took.iter().map(Duration::as_millis).collect();
    println!(
        "kill -9 of an owner to the next booking at its clinics, ms, sorted: {millis:?}; median {}, max {}",
        (millis[KILLS / 2 - 1] + millis[KILLS / 2]) / 2,
        millis[KILLS - 1],
    );
    Ok(())
}
