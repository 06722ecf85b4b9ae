//! A day too young and a day too old.

use domain::Refusal;

use crate::world::{BORN_FROM, BORN_TO, CALLER, World, expect_refused};

#[tokio::test(flavor = "multi_thread")]
async fn the_border_days_get_permits_and_the_days_beyond_them_none() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign("ages", "mrna-one").await?;
    let people = world.cluster.postgres.session("people").await?;
    let places = async || {
        anyhow::Ok(
            people
                .query_one("SELECT count(*) FROM place", &[])
                .await?
                .get::<_, i64>(0),
        )
    };

    for (sub, born) in [("too-old", "1961-07-31"), ("too-young", "1971-08-01")] {
        for region in crate::world::REGIONS {
            let answer = world.permit("ages", region, sub, born, CALLER).await;
            expect_refused(
                &format!("somebody born {born}"),
                answer,
                Refusal::NotEligible,
            )?;
        }
    }
    for born in ["1961-8-1", "1965-02-30", "1961-08-01T00:00:00Z", ""] {
        let answer = world.permit("ages", "seoul", "no-day", born, CALLER).await;
        expect_refused(
            &format!("the birth date {born:?}"),
            answer,
            Refusal::AssertionInvalid,
        )?;
    }
    anyhow::ensure!(places().await? == 0, "somebody refused has a place");

    for (sub, born) in [("oldest", BORN_FROM), ("youngest", BORN_TO)] {
        let permit = world.permit("ages", "seoul", sub, born, CALLER).await?;
        anyhow::ensure!(
            world.read_permit(&permit)?.caller.as_str() == CALLER,
            "another caller"
        );
    }
    anyhow::ensure!(places().await? == 2, "not two places");
    // Once in line, saying to be of another age takes nothing and gives nothing.
    let answer = world
        .permit("ages", "jeju", "oldest", BORN_FROM, CALLER)
        .await;
    expect_refused("another region", answer, Refusal::RegionBound)?;
    anyhow::ensure!(places().await? == 2, "a second place");
    Ok(())
}
