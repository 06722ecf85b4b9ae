//! Between the draw and the doors: how fast lines will move is published, and nobody is admitted by it.

use domain::room::draw::Announcement;

use super::super::draw::Ask;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn once_the_order_is_known_people_hear_how_fast_the_line_will_move() {
    let world = world().await;
    let _one = world.candidate("one");
    let places = world.stamp(0, 400).await;
    world.until("a lobby", |_| true).await;
    let (campaign, cohort) = (campaign(), cohort());
    let set = world.rooms.rate(&campaign, &cohort, Some(50_000)).await;
    set.expect("set");
    world.show(100);
    let commit = Ask::Commit {
        beacon: Announcement {
            source: "a public source".to_owned(),
            round: "77".to_owned(),
            published_at: None,
        },
        second: None,
        reveal_by: world.clock.wall().plus(Duration::from_secs(100)),
    };
    let beacon = Ask::Beacon {
        named: None,
        value: "the value".to_owned(),
    };
    for ask in [commit, Ask::Freeze, Ask::Reveal, beacon] {
        let taken = world.rooms.step((&campaign, &cohort), ask).await;
        taken.expect("in order");
    }
    let drawn = world
        .until("a promise", |room| {
            room.regions[&seoul()].promise.per_kilosecond > 0
        })
        .await;
    let line = &drawn.regions[&seoul()];
    assert_eq!(drawn.phase, Phase::Drawn);
    assert_eq!((line.f0, line.per_kilosecond, line.f_end), (0, 0, 0));
    let seen = world.seen().await;
    let soon = Duration::from_secs(3_600);
    assert!(
        places
            .iter()
            .all(|place| seen.admitted(place, &seoul(), soon).is_err()),
        "the doors are closed"
    );
    let opened = world.rooms.step((&campaign, &cohort), Ask::Doors).await;
    opened.expect("opened");
    let moving = world
        .until("the line moves", |room| frontier(room) > 20)
        .await;
    let told = moving.regions[&seoul()].promise.per_kilosecond;
    assert!(
        told.abs_diff(line.promise.per_kilosecond) * 100 <= 15 * told,
        "as foretold: {told} after {}",
        line.promise.per_kilosecond
    );
}
