//! An owner is killed with -9, twenty times: how long until its clinics book again.

use std::time::{Duration, Instant};

use system_tests::await_until::await_ok;
use uuid::Uuid;

use crate::town::Town;

const KILLS: usize = 20;
/// The bound that every single kill has to hold.
const BOOKS_AGAIN_WITHIN: Duration = Duration::from_secs(4);
/// How long a device waits for one answer before it sends the same request again.
const PATIENCE: Duration = Duration::from_secs(1);
const READY_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::print_stdout,
    reason = "the distribution is what a reader of this test wants"
)]
async fn a_killed_owners_clinics_book_again_within_four_seconds_twenty_times() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), 8 * KILLS).await?;
    let mut took = Vec::with_capacity(KILLS);
    for kill in 0..KILLS {
        let owner = town.owner(0).await?;
        let at = town.inventory(&owner)?;
        let (permit, request) = (town.permit()?, Uuid::new_v4());
        let slot = town.slots[0][kill % town.slots[0].len()].clone();
        let caller = town.callers[kill % town.callers.len()].clone();

        let began = Instant::now();
        town.cluster.inventories[at].process.kill()?;
        await_ok(
            &format!("clinics book again after kill {kill}"),
            BOOKS_AGAIN_WITHIN,
            || caller.book(&permit, request, 0, &slot, PATIENCE),
        )
        .await?;
        took.push(began.elapsed());

        let next = town.owner(0).await?;
        assert!(
            next.epoch > owner.epoch,
            "{next:?} books after {owner:?} was killed"
        );
        town.cluster.inventories[at].process.restart()?;
        town.cluster.await_ready(READY_WITHIN).await?;
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
