//! What a gateway believes when owners change, messages are lost and clinics move.

use proto::inventory::{ShardAlive, ShardReleased, SlotChanges};

use super::*;

fn clinic(id: &str) -> ClinicInfo {
    ClinicInfo {
        clinic: id.to_owned(),
        district: "jongno".to_owned(),
        ..ClinicInfo::default()
    }
}

fn slot(clinic: &str, id: u64, left: u32) -> SlotInfo {
    SlotInfo {
        slot: id,
        clinic: clinic.to_owned(),
        vaccine: "v".to_owned(),
        dose: 1,
        capacity: 10,
        left,
        open: true,
        ..SlotInfo::default()
    }
}

fn said(shard: u32, epoch: u64, sequence: u64, update: Update) -> WatchShardsResponse {
    let as_of = Some(proto::convert::timestamp(Timestamp::from_secs(
        i64::try_from(epoch * 100 + sequence).expect("small"),
    )));
    WatchShardsResponse {
        shard,
        epoch,
        sequence,
        as_of,
        update: Some(update),
    }
}

fn snapshot(clinics: &[&str], slots: Vec<SlotInfo>) -> Update {
    Update::Snapshot(ShardSnapshot {
        clinics: clinics.iter().map(|c| clinic(c)).collect(),
        slots,
    })
}

fn changes(slots: Vec<SlotInfo>) -> Update {
    Update::Changes(SlotChanges { slots })
}

fn left(shards: &Shards, clinic: &str, slot: u64) -> Option<u32> {
    let held = shards.clinic(&clinic.parse().expect("slug"))?;
    held.slots.get(&SlotId(slot)).map(|slot| slot.left)
}

#[test]
fn a_snapshot_then_changes_in_sequence() {
    let mut shards = Shards::default();
    let changed = shards.apply(said(0, 5, 1, snapshot(&["c1"], vec![slot("c1", 1, 10)])));
    assert!(changed.shards_of_clinics && !changed.gap && changed.slots.len() == 1);
    let changed = shards.apply(said(0, 5, 2, changes(vec![slot("c1", 1, 9)])));
    assert!(!changed.gap && !changed.shards_of_clinics);
    assert_eq!(left(&shards, "c1", 1), Some(9));
    let part = shards.apply(said(0, 5, 2, changes(vec![slot("c1", 2, 6)])));
    assert!(
        !part.gap && left(&shards, "c1", 2) == Some(6),
        "a long snapshot has several parts"
    );
    let late = shards.apply(said(0, 5, 1, changes(vec![slot("c1", 1, 3)])));
    assert!(late.slots.is_empty(), "heard before");
    assert_eq!(left(&shards, "c1", 1), Some(9));
    assert!(
        shards
            .apply(said(0, 5, 4, changes(vec![slot("c1", 1, 8)])))
            .gap
    );
}

#[test]
fn nothing_of_a_superseded_owner_counts() {
    let mut shards = Shards::default();
    shards.apply(said(0, 5, 1, snapshot(&["c1"], vec![slot("c1", 1, 10)])));
    shards.apply(said(0, 6, 1, snapshot(&["c1"], vec![slot("c1", 1, 4)])));
    for late in [
        changes(vec![slot("c1", 1, 9)]),
        snapshot(&["c1"], vec![slot("c1", 1, 10)]),
        Update::Alive(ShardAlive {}),
    ] {
        let changed = shards.apply(said(0, 5, 9, late));
        assert!(changed.slots.is_empty() && !changed.refreshed);
    }
    assert_eq!(left(&shards, "c1", 1), Some(4));
    assert!(
        shards
            .apply(said(0, 7, 2, changes(vec![slot("c1", 1, 1)])))
            .gap,
        "no snapshot of 7"
    );
}

#[test]
fn a_released_shard_is_served_on_and_its_age_shows() {
    let mut shards = Shards::default();
    shards.apply(said(0, 5, 1, snapshot(&["c1"], vec![slot("c1", 1, 10)])));
    shards.apply(said(1, 9, 1, snapshot(&["c2"], vec![slot("c2", 2, 10)])));
    shards.apply(said(0, 5, 2, Update::Released(ShardReleased {})));
    assert_eq!(left(&shards, "c1", 1), Some(10));
    assert_eq!(
        shards.as_of(),
        Some(Timestamp::from_secs(501)),
        "as its oldest shard"
    );
    shards.apply(said(0, 6, 1, Update::Snapshot(ShardSnapshot::default())));
    assert_eq!(shards.as_of(), Some(Timestamp::from_secs(601)));
}

#[test]
fn what_a_snapshot_leaves_out_is_gone() {
    let mut shards = Shards::default();
    let all = vec![slot("c1", 1, 10), slot("c1", 2, 10), slot("c2", 3, 10)];
    shards.apply(said(0, 5, 1, snapshot(&["c1", "c2"], all)));
    let changed = shards.apply(said(0, 6, 1, snapshot(&["c1"], vec![slot("c1", 1, 10)])));
    assert_eq!(
        (left(&shards, "c1", 2), left(&shards, "c2", 3)),
        (None, None)
    );
    let gone: BTreeSet<_> = changed
        .slots
        .iter()
        .map(|(_, slot)| (slot.id.0, slot.left))
        .collect();
    assert_eq!(
        gone,
        BTreeSet::from([(2, 0), (3, 0)]),
        "watchers hear that nothing is left"
    );
}

#[test]
fn a_clinic_belongs_to_the_shard_that_named_it_last() {
    let c1: ClinicId = "c1".parse().expect("slug");
    let mut shards = Shards::default();
    shards.apply(said(0, 5, 1, snapshot(&["c1"], vec![slot("c1", 1, 10)])));
    let changed = shards.apply(said(1, 8, 1, snapshot(&["c1"], vec![slot("c1", 1, 7)])));
    assert!(changed.shards_of_clinics);
    assert_eq!(shards.clinic(&c1).map(|held| held.shard), Some(ShardId(1)));
    shards.apply(said(0, 5, 2, changes(vec![slot("c1", 1, 10)])));
    assert_eq!(
        left(&shards, "c1", 1),
        Some(7),
        "no longer shard 0's to describe"
    );
    shards.apply(said(0, 6, 1, snapshot(&[], Vec::new())));
    assert_eq!(left(&shards, "c1", 1), Some(7), "nor to remove");
}

#[test]
fn a_closed_slot_has_nothing_left() {
    let mut shards = Shards::default();
    let closed = SlotInfo {
        open: false,
        ..slot("c1", 1, 5)
    };
    shards.apply(said(0, 1, 1, snapshot(&["c1"], vec![closed])));
    assert_eq!(left(&shards, "c1", 1), Some(0));
}
