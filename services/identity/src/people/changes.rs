//! Changes of region, as the store keeps them and as their holders find them.
//!
//! Invariant: about one serial of a person there is one change for ever, and the next serial comes with its end.

use domain::{CampaignId, PersonId, RegionId, Serial};

use super::Placed;

/// What a permit's holder asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The campaign.
    pub campaign: CampaignId,
    /// The person.
    pub person: PersonId,
    /// The permit's serial.
    pub serial: Serial,
    /// The permit's region.
    pub from: RegionId,
    /// The region wanted; the permit's own takes a change back.
    pub to: RegionId,
}

/// How that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The person has the region wanted, and no change to another is under way from this permit.
    Settled(Placed),
    /// The region of the permit is to be asked; a change to this region is under way, or would be.
    Moving {
        /// Where it goes to.
        to: RegionId,
    },
    /// A change to a third region is under way.
    Elsewhere {
        /// Where it goes to.
        to: RegionId,
    },
    /// A newer permit is in force, in a region that is not the one wanted.
    Superseded,
}

// === impl Change ===

impl Change {
    /// How it stands with what the store has of the person.
    #[must_use]
    pub fn standing(&self, found: Option<Placed>) -> Standing {
        let Some(placed) = found else {
            return Standing::Superseded;
        };
        // Who lost the answer asks again with the permit they had.
        if placed.serial > self.serial && placed.region == self.to {
            return Standing::Settled(placed);
        }
        if placed.serial != self.serial || placed.region != self.from {
            return Standing::Superseded;
        }
        match placed.moving_to.clone() {
            Some(to) if to == self.to || self.to == self.from => Standing::Moving { to },
            Some(to) => Standing::Elsewhere { to },
            None if self.to == self.from => Standing::Settled(placed),
            None => Standing::Moving {
                to: self.to.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::place::{DrawTicket, Place};

    use super::*;

    fn region(name: &str) -> RegionId {
        name.parse().expect("slug")
    }

    fn change(serial: u64, from: &str, to: &str) -> Change {
        Change {
            campaign: "c".parse().expect("slug"),
            person: PersonId::from_bytes([1; 16]),
            serial: Serial(serial),
            from: region(from),
            to: region(to),
        }
    }

    fn placed(serial: u64, at: &str, moving_to: Option<&str>) -> Placed {
        Placed {
            cohort: "h".parse().expect("slug"),
            region: region(at),
            serial: Serial(serial),
            place: Place {
                bucket: 0,
                ticket: DrawTicket([1; 16]),
            },
            moving_to: moving_to.map(region),
        }
    }

    #[test]
    fn what_a_permit_finds_depends_on_its_serial_and_on_what_is_under_way() {
        let to = |name| Standing::Moving { to: region(name) };
        let from_seoul = |wanted| change(2, "seoul", wanted);
        let at_seoul = |moving_to| Some(placed(2, "seoul", moving_to));
        let table = [
            (from_seoul("busan"), at_seoul(None), to("busan")),
            (from_seoul("busan"), at_seoul(Some("busan")), to("busan")),
            (from_seoul("seoul"), at_seoul(Some("busan")), to("busan")),
            (
                from_seoul("jeju"),
                at_seoul(Some("busan")),
                Standing::Elsewhere {
                    to: region("busan"),
                },
            ),
            (
                from_seoul("seoul"),
                at_seoul(None),
                Standing::Settled(placed(2, "seoul", None)),
            ),
            // The answer was lost; the change had ended.
            (
                from_seoul("busan"),
                Some(placed(3, "busan", None)),
                Standing::Settled(placed(3, "busan", None)),
            ),
            (
                from_seoul("jeju"),
                Some(placed(3, "busan", None)),
                Standing::Superseded,
            ),
            // A permit that this store never issued.
            (
                from_seoul("busan"),
                Some(placed(1, "seoul", None)),
                Standing::Superseded,
            ),
            (
                from_seoul("jeju"),
                Some(placed(2, "busan", None)),
                Standing::Superseded,
            ),
            (from_seoul("busan"), None, Standing::Superseded),
        ];
        for (change, found, expected) in table {
            assert_eq!(
                change.standing(found.clone()),
                expected,
                "{change:?} {found:?}"
            );
        }
    }
}
