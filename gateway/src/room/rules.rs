//! What campaigns say about waiting: how many polls there may be, and when the doors are announced to open.

use std::collections::{BTreeMap, HashMap};

use domain::Timestamp;
use domain::campaign::{Campaign, RoomRules};
use domain::room::wait::Pace;
use proto::room::GetRoomRequest;
use runtime::keyspace::Entry;

/// What a person who waits in a room is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) pace: Pace,
    pub(super) opens_at: Option<Timestamp>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(&RoomRules::default(), None)
    }
}

impl Rules {
    pub(super) fn of(rules: &RoomRules, opens_at: Option<Timestamp>) -> Self {
        Self {
            pace: Pace {
                polls_per_second: rules.polls_per_second,
                expected_people: rules.expected_people,
            },
            opens_at,
        }
    }
}

/// The rules of every room of every campaign that can be read.
pub(super) fn read(entries: &BTreeMap<String, Entry>) -> HashMap<GetRoomRequest, Rules> {
    let mut all = HashMap::new();
    for entry in entries.values() {
        let Ok(campaign) = serde_json::from_slice::<Campaign>(&entry.value) else {
            tracing::warn!(key = entry.key, "not a campaign document");
            continue;
        };
        for cohort in &campaign.cohorts {
            let room = GetRoomRequest {
                campaign: campaign.campaign.to_string(),
                cohort: cohort.cohort.to_string(),
            };
            let opens_at = Timestamp::from_micros(cohort.opens_at.as_microsecond());
            all.insert(room, Rules::of(&campaign.room, Some(opens_at)));
        }
    }
    all
}
