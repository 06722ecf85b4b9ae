//! Which step of a draw the campaign's schedule asks for now. Pure.

use domain::Timestamp;
use domain::campaign::{DrawSchedule, ScheduledBeacon};
use domain::room::draw::Announcement;
use domain::room::{Phase, Room};

use super::draw::Ask;

/// The step to be taken at `now`; `None` while there is nothing to do but wait.
#[must_use]
pub fn due(
    schedule: &DrawSchedule,
    opens_at: jiff::Timestamp,
    room: &Room,
    now: Timestamp,
) -> Option<Ask> {
    if !matches!(room.phase, Phase::Lobby | Phase::Frozen | Phase::Drawn) {
        return None;
    }
    let draw = &room.draw;
    let (at, ask) = if draw.commit.is_none() {
        let ask = Ask::Commit {
            beacon: announcement(&schedule.beacon),
            second: schedule.second.as_ref().map(announcement),
            reveal_by: micros(schedule.reveal_by),
        };
        (schedule.commit_at, ask)
    } else if draw.list_root.is_none() {
        (schedule.freeze_at, Ask::Freeze)
    } else if draw.seed.is_none() {
        (schedule.reveal_at, Ask::Reveal)
    } else if draw.beacon.is_none() {
        // Only an operator can say what was published.
        return None;
    } else {
        (opens_at, Ask::Doors)
    };
    (now >= micros(at)).then_some(ask)
}

fn announcement(beacon: &ScheduledBeacon) -> Announcement {
    Announcement {
        source: beacon.source.clone(),
        round: beacon.round.clone(),
        published_at: beacon.published_at.map(micros),
    }
}

fn micros(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_micros(at.as_microsecond())
}

#[cfg(test)]
mod tests {
    use domain::room::Bytes32;
    use domain::room::draw::{Beacon, Commit};

    use super::*;

    fn at(secs: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(secs).expect("in range")
    }

    #[test]
    fn each_step_is_asked_for_in_its_time_and_the_value_is_waited_for() {
        let schedule = DrawSchedule {
            commit_at: at(10),
            freeze_at: at(20),
            reveal_at: at(30),
            reveal_by: at(40),
            beacon: ScheduledBeacon {
                source: "drand quicknet".to_owned(),
                round: "77".to_owned(),
                published_at: Some(at(50)),
            },
            second: None,
        };
        let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
        let due = |room: &Room, secs| due(&schedule, at(60), room, Timestamp::from_secs(secs));
        assert!(due(&room, 9).is_none());
        let Some(Ask::Commit {
            beacon,
            second,
            reveal_by,
        }) = due(&room, 10)
        else {
            panic!("time to commit");
        };
        assert!(
            second.is_none() && due(&room, 9_999).is_some(),
            "late is better than never"
        );
        room.draw.commit = Some(Commit {
            seed_hash: Bytes32::ZERO,
            beacon,
            second,
            reveal_by,
            code_version: "x".to_owned(),
        });
        assert!(due(&room, 19).is_none());
        assert!(matches!(due(&room, 20), Some(Ask::Freeze)));
        room.draw.list_root = Some(Bytes32::ZERO);
        assert!(due(&room, 29).is_none());
        assert!(matches!(due(&room, 30), Some(Ask::Reveal)));
        room.draw.seed = Some(Bytes32::ZERO);
        assert!(
            due(&room, 9_999).is_none(),
            "only an operator knows the value"
        );
        room.draw.beacon = Some(Beacon {
            source: "drand quicknet".to_owned(),
            round: "77".to_owned(),
            value: "f00".to_owned(),
        });
        assert!(due(&room, 59).is_none());
        assert!(matches!(due(&room, 60), Some(Ask::Doors)));
        room.phase = Phase::Open;
        assert!(due(&room, 60).is_none());
    }
}
