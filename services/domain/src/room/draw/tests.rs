//! The steps, by what an operator might try.

use ed25519_dalek::SigningKey;

use super::*;

const SEED: Bytes32 = Bytes32([7; 32]);

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn announced(source: &str, published: i64) -> Announcement {
    Announcement {
        source: source.to_owned(),
        round: "9000".to_owned(),
        published_at: Some(at(published)),
    }
}

fn commit() -> Commit {
    Commit {
        seed_hash: Bytes32::sha256(SEED.0),
        beacon: announced("drand quicknet", 300),
        second: Some(announced("Lotto 6/45", 600)),
        reveal_by: at(200),
        code_version: "0.1.0".to_owned(),
    }
}

fn freeze() -> Body {
    Body::Freeze(Freeze {
        list_root: Bytes32([1; 32]),
        n0: 10,
        regions: [
            ("seoul".parse().expect("slug"), 7),
            ("jeju".parse().expect("slug"), 3),
        ]
        .into(),
    })
}

fn beacon(source: &str) -> Body {
    Body::Beacon(Beacon {
        source: source.to_owned(),
        round: "9000".to_owned(),
        value: "1 2 3".to_owned(),
    })
}

fn key() -> SigningKeyWithId {
    SigningKeyWithId::new("k1", SigningKey::from_bytes(&[3; 32]))
}

fn chain() -> Chain {
    Chain::new("c".parse().expect("slug"), "h".parse().expect("slug"))
}

fn walk(steps: Vec<(i64, Body)>) -> Result<Chain, BadStep> {
    let keys =
        TrustedKeys::new([("k1".to_owned(), key().verifying_key().to_bytes())]).expect("good");
    let mut chain = chain();
    for (secs, body) in steps {
        let text = chain.next(at(secs), body)?.sign(&key());
        chain.append_text(&keys, &text)?;
    }
    Ok(chain)
}

fn good() -> Vec<(i64, Body)> {
    vec![
        (0, Body::Commit(commit())),
        (100, freeze()),
        (150, Body::Reveal { seed: SEED }),
        (301, beacon("drand quicknet")),
    ]
}

fn with(at: usize, step: (i64, Body)) -> Result<Chain, BadStep> {
    let mut steps = good();
    steps[at] = step;
    walk(steps)
}

#[test]
fn a_whole_draw_ends_in_the_seed_that_a_stranger_computes() {
    let mut chain = walk(good()).expect("a good draw");
    // Computed apart from this code, with a few lines of Python over the formula.
    let expected = "976eca00e778255df0c09b6db87e7377a7925afcf49c7685c8584933a16e29d5";
    let seed = chain.draw().final_seed.expect("drawn");
    assert_eq!(chain.expected(), Some("DOORS"));
    assert_eq!(seed.to_string(), expected);
    let wrong = Body::Doors {
        final_seed: Bytes32::ZERO,
    };
    assert_eq!(chain.next(at(400), wrong), Err(BadStep::WrongFinalSeed));
    let doors = chain
        .next(at(400), chain.doors().expect("drawn"))
        .expect("right");
    chain.append(&doors, Bytes32([9; 32])).expect("right");
    assert_eq!((chain.expected(), chain.length()), (None, 5));
    assert_eq!(
        chain.next(at(500), Body::Commit(commit())),
        Err(BadStep::OutOfOrder {
            expected: "nothing"
        }),
        "one draw per room, never repeated"
    );
}

#[test]
fn no_step_comes_early_or_twice() {
    let steps = good();
    for length in 0..steps.len() {
        let chain = walk(steps[..length].to_vec()).expect("a good beginning");
        for (other, (_, body)) in steps.iter().enumerate() {
            let next = chain.next(at(700), body.clone());
            if other != length {
                let expected = ORDER[length];
                assert_eq!(
                    next,
                    Err(BadStep::OutOfOrder { expected }),
                    "{} after {length}",
                    body.name()
                );
            }
        }
    }
}

#[test]
fn a_seed_counts_in_its_time_only() {
    let other = Body::Reveal {
        seed: Bytes32([8; 32]),
    };
    assert_eq!(with(2, (150, other)).map(|_| ()), Err(BadStep::SeedChanged));
    let zero = || Body::Reveal {
        seed: Bytes32::ZERO,
    };
    assert_eq!(
        with(2, (150, zero())).map(|_| ()),
        Err(BadStep::SeedChanged),
        "too early to give up"
    );
    assert_eq!(
        with(2, (201, Body::Reveal { seed: SEED })).map(|_| ()),
        Err(BadStep::SeedLate)
    );
    let zeroed = with(2, (201, zero())).expect("missing seed = 32 zero bytes");
    assert_ne!(
        zeroed.draw().final_seed,
        walk(good()).expect("good").draw().final_seed
    );
}

#[test]
fn an_operator_without_the_seed_waits_for_its_time_to_pass() {
    let chain = walk(good()[..2].to_vec()).expect("frozen");
    assert_eq!(chain.reveal(at(200), None), None);
    assert_eq!(
        chain.reveal(at(200), Some(SEED)),
        Some(Body::Reveal { seed: SEED })
    );
    let zero = Some(Body::Reveal {
        seed: Bytes32::ZERO,
    });
    assert_eq!(chain.reveal(at(201), None), zero);
    assert_eq!(chain.reveal(at(201), Some(SEED)), zero, "too late");
}

#[test]
fn only_an_announced_beacon_counts_and_not_before_its_time() {
    assert_eq!(
        with(3, (301, beacon("my own dice"))).map(|_| ()),
        Err(BadStep::WrongBeacon)
    );
    let mut wrong_round = beacon("drand quicknet");
    if let Body::Beacon(beacon) = &mut wrong_round {
        beacon.round = "9001".to_owned();
    }
    assert_eq!(
        with(3, (301, wrong_round)).map(|_| ()),
        Err(BadStep::WrongBeacon)
    );
    assert_eq!(
        with(3, (299, beacon("drand quicknet"))).map(|_| ()),
        Err(BadStep::BeaconEarly)
    );
    assert_eq!(
        with(3, (301, beacon("Lotto 6/45"))).map(|_| ()),
        Err(BadStep::BeaconEarly)
    );
    assert!(
        with(3, (601, beacon("Lotto 6/45"))).is_ok(),
        "the second source, announced too"
    );
    let mut steps = good();
    steps[0].1 = Body::Commit(Commit {
        second: None,
        ..commit()
    });
    steps[3] = (601, beacon("Lotto 6/45"));
    assert_eq!(
        walk(steps).map(|_| ()),
        Err(BadStep::WrongBeacon),
        "not named in the commit"
    );
}

#[test]
fn a_list_frozen_after_a_value_came_out_cannot_use_it() {
    let late = |freeze_at, beacon_at, source| {
        let zero = Body::Reveal {
            seed: Bytes32::ZERO,
        };
        let steps = vec![
            (0, Body::Commit(commit())),
            (freeze_at, freeze()),
            (freeze_at + 10, zero),
            (beacon_at, beacon(source)),
        ];
        walk(steps).map(|_| ())
    };
    assert_eq!(late(300, 650, "drand quicknet"), Err(BadStep::BeaconKnown));
    assert_eq!(
        late(300, 650, "Lotto 6/45"),
        Ok(()),
        "nobody knew the second one"
    );
    assert_eq!(late(600, 650, "Lotto 6/45"), Err(BadStep::FrozenLate));
}

#[test]
fn the_rules_themselves_must_make_sense() {
    let bad = |commit: Commit| walk(vec![(0, Body::Commit(commit))]).map(|_| ());
    let times = Err(BadStep::Times);
    assert_eq!(
        bad(Commit {
            reveal_by: at(300),
            ..commit()
        }),
        times,
        "reveal before the beacon"
    );
    assert_eq!(
        bad(Commit {
            second: Some(announced("x", 300)),
            ..commit()
        }),
        times
    );
    for text in ["", " x", "x ", "a\nb", &"x".repeat(1_025)] {
        assert_eq!(
            bad(Commit {
                code_version: text.to_owned(),
                ..commit()
            }),
            Err(BadStep::Text),
            "{text:?}"
        );
    }
    let mut uneven = good();
    if let Body::Freeze(freeze) = &mut uneven[1].1 {
        freeze.n0 = 11;
    }
    assert_eq!(walk(uneven).map(|_| ()), Err(BadStep::Sums));
}

#[test]
fn links_rooms_and_times_must_fit() {
    let mut chain = walk(good()[..2].to_vec()).expect("frozen");
    let step = chain
        .next(at(150), Body::Reveal { seed: SEED })
        .expect("fits");
    let refused = |chain: &mut Chain, step: Step| chain.append(&step, Bytes32::ZERO);
    let broken = Step {
        prev_hash: Some(Bytes32::ZERO),
        ..step.clone()
    };
    assert_eq!(refused(&mut chain, broken), Err(BadStep::BrokenChain));
    let back = Step {
        at: at(99),
        ..step.clone()
    };
    assert_eq!(refused(&mut chain, back), Err(BadStep::TimeBack));
    let elsewhere = Step {
        cohort: "x".parse().expect("slug"),
        ..step.clone()
    };
    assert_eq!(refused(&mut chain, elsewhere), Err(BadStep::AnotherRoom));
    let keys =
        TrustedKeys::new([("k1".to_owned(), key().verifying_key().to_bytes())]).expect("good");
    let message = serde_json::to_vec(&step).expect("serialises");
    let as_a_room = key().sign(&message, super::super::PURPOSE);
    assert_eq!(
        chain.append_text(&keys, &as_a_room),
        Err(BadStep::Untrusted(Untrusted::BadSignature)),
        "signed for another purpose"
    );
    assert_eq!(refused(&mut chain, step), Ok(()));
}

#[test]
fn what_a_draw_said_it_goes_on_saying() {
    let frozen = walk(good()[..2].to_vec()).expect("frozen");
    let drawn = walk(good()).expect("drawn");
    assert!(drawn.draw().extends(frozen.draw()) && !frozen.draw().extends(drawn.draw()));
    let other = Draw {
        n0: Some(11),
        ..drawn.draw().clone()
    };
    assert!(!other.extends(frozen.draw()));
}
