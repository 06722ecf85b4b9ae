//! When a late bucket is closed. Pure.

use std::time::Duration;

use domain::campaign::RoomRules;
use domain::room::{RegionState, Room};

use crate::people::OpenBucket;

/// A bucket is closed at most this often, also when the line is empty: inside it the order is drawn, so who is fastest
/// gains nothing.
pub const EVERY: Duration = Duration::from_secs(1);

/// Whether the open bucket is to be closed, in a room whose last closed bucket is `last`.
#[must_use]
pub fn due(open: &OpenBucket, last: u32, rules: &RoomRules, line_empty: bool) -> bool {
    if open.id > last + 1 {
        // It was closed in the people store, and its writer died before everybody was told.
        return true;
    }
    let seconds = Duration::from_secs(rules.bucket_seconds.into());
    let full = open.people >= u64::from(rules.bucket_size);
    open.people > 0 && (full || open.open_for >= seconds || line_empty && open.open_for >= EVERY)
}

/// Whether some region has let everybody in whose order is known, and has something left for who comes.
#[must_use]
pub fn line_empty(room: &Room, people: u64) -> bool {
    let mut lines = room.regions.values();
    lines.any(|line| line.state == RegionState::Open && line.f0 >= people)
}

#[cfg(test)]
mod tests {
    use domain::room::Frontier;

    use super::*;

    fn open(id: u32, people: u64, secs: u64) -> OpenBucket {
        OpenBucket {
            id,
            people,
            open_for: Duration::from_secs(secs),
        }
    }

    #[test]
    fn a_bucket_closes_when_it_is_old_full_or_holds_up_the_first_in_line() {
        let rules = RoomRules {
            bucket_seconds: 30,
            bucket_size: 100,
            ..RoomRules::default()
        };
        let due = |open, empty| due(&open, 4, &rules, empty);
        assert!(!due(open(5, 99, 29), false));
        assert!(due(open(5, 100, 0), false), "full");
        assert!(due(open(5, 1, 30), false), "old");
        assert!(!due(open(5, 0, 3_600), true), "nobody waits in it");
        assert!(due(open(5, 1, 1), true), "nobody is before them");
        assert!(!due(open(5, 1, 0), true), "one a second");
        assert!(due(open(6, 0, 0), false), "closed already, not told yet");
    }

    #[test]
    fn a_line_is_empty_where_somebody_could_go_in_at_once() {
        let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
        let line = |f0, state| Frontier {
            f0,
            state,
            ..Frontier::default()
        };
        let mut put = |name: &str, line| room.regions.insert(name.parse().expect("slug"), line);
        put("seoul", line(9, RegionState::Open));
        put("busan", line(10, RegionState::Exhausted));
        assert!(!line_empty(&room, 10));
        room.regions
            .insert("jeju".parse().expect("slug"), line(10, RegionState::Open));
        assert!(line_empty(&room, 10));
    }
}
