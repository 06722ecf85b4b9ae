//! Resource names of the public API, such as `regions/seoul/clinics/1168-0042/slots/17`.
//!
//! Names exist at the edge only; inside, ids are types. A shard never appears in a name.

use std::fmt;
use std::str::FromStr;

use crate::ids::{
    BookingId, CallingSystem, ClinicId, IncidentId, Malformed, RegionId, RoundId, SlotId,
};

/// `regions/{region}/clinics/{clinic}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClinicName {
    /// The region whose ledger knows the clinic.
    pub region: RegionId,
    /// The clinic.
    pub clinic: ClinicId,
}

/// `regions/{region}/clinics/{clinic}/slots/{slot}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName {
    /// The clinic that offers the slot.
    pub clinic: ClinicName,
    /// The slot.
    pub slot: SlotId,
}

/// `regions/{region}/clinics/{clinic}/leftovers/{round}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeftoversName {
    /// The clinic whose doses they are.
    pub clinic: ClinicName,
    /// The round in which they are offered.
    pub round: RoundId,
}

/// `regions/{region}/clinics/{clinic}/holds/{hold}`: a hold stays with the clinic it was made at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldName {
    /// The clinic the hold is for.
    pub clinic: ClinicName,
    /// The hold; it keeps this id when it becomes a booking.
    pub hold: BookingId,
}

/// `regions/{region}/bookings/{booking}`: a booking may move between the clinics of its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookingName {
    /// The region whose ledger has the booking.
    pub region: RegionId,
    /// The booking.
    pub booking: BookingId,
}

/// `regions/{region}/clinics/{clinic}/incidents/{incident}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentName {
    /// The clinic it happened to.
    pub clinic: ClinicName,
    /// The incident.
    pub incident: IncidentId,
}

const CLINIC: &str = "regions/{region}/clinics/{clinic}";
const SLOT: &str = "regions/{region}/clinics/{clinic}/slots/{slot}";
const LEFTOVERS: &str = "regions/{region}/clinics/{clinic}/leftovers/{round}";
const HOLD: &str = "regions/{region}/clinics/{clinic}/holds/{hold}";
const INCIDENT: &str = "regions/{region}/clinics/{clinic}/incidents/{incident}";
const BOOKING: &str = "regions/{region}/bookings/{booking}";

fn parts<const N: usize>(
    text: &str,
    collections: [&str; N],
    form: &'static str,
) -> Result<[String; N], Malformed> {
    let mut pieces = text.split('/');
    let mut ids = [const { String::new() }; N];
    for (id, collection) in ids.iter_mut().zip(collections) {
        if pieces.next() != Some(collection) {
            return Err(Malformed::Name { form });
        }
        *id = pieces
            .next()
            .filter(|s| !s.is_empty())
            .ok_or(Malformed::Name { form })?
            .to_owned();
    }
    if pieces.next().is_some() {
        Err(Malformed::Name { form })
    } else {
        Ok(ids)
    }
}

impl ClinicName {
    /// Between region and clinic in the name of a clinic's calling system.
    const BETWEEN: &str = "--";

    /// The calling system of this clinic's terminals, such as `seoul--1168-0042`.
    #[must_use]
    pub fn calling_system(&self) -> String {
        format!("{}{}{}", self.region, Self::BETWEEN, self.clinic)
    }

    /// Whether a calling system is this clinic's. A region with two dashes in its name has none: one name, one clinic.
    #[must_use]
    pub fn is_served_by(&self, system: &CallingSystem) -> bool {
        system.as_str().split_once(Self::BETWEEN)
            == Some((self.region.as_str(), self.clinic.as_str()))
    }
}

impl FromStr for ClinicName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let [region, clinic] = parts(text, ["regions", "clinics"], CLINIC)?;
        Ok(Self {
            region: region.parse()?,
            clinic: clinic.parse()?,
        })
    }
}

impl FromStr for SlotName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let [region, clinic, slot] = parts(text, ["regions", "clinics", "slots"], SLOT)?;
        let number = number(&slot, "slot")?;
        let clinic = ClinicName {
            region: region.parse()?,
            clinic: clinic.parse()?,
        };
        Ok(Self {
            clinic,
            slot: SlotId(number),
        })
    }
}

/// One id has one spelling: no sign, no leading zero.
fn number(text: &str, what: &'static str) -> Result<u64, Malformed> {
    text.parse::<u64>()
        .ok()
        .filter(|n| *n > 0 && i64::try_from(*n).is_ok() && n.to_string() == text)
        .ok_or(Malformed::Number { what })
}

impl FromStr for LeftoversName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let [region, clinic, round] = parts(text, ["regions", "clinics", "leftovers"], LEFTOVERS)?;
        let round = RoundId(number(&round, "round")?);
        let clinic = ClinicName {
            region: region.parse()?,
            clinic: clinic.parse()?,
        };
        Ok(Self { clinic, round })
    }
}

impl FromStr for HoldName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let [region, clinic, hold] = parts(text, ["regions", "clinics", "holds"], HOLD)?;
        let clinic = ClinicName {
            region: region.parse()?,
            clinic: clinic.parse()?,
        };
        Ok(Self {
            clinic,
            hold: hold.parse()?,
        })
    }
}

impl FromStr for IncidentName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let [region, clinic, incident] =
            parts(text, ["regions", "clinics", "incidents"], INCIDENT)?;
        let clinic = ClinicName {
            region: region.parse()?,
            clinic: clinic.parse()?,
        };
        Ok(Self {
            clinic,
            incident: incident.parse()?,
        })
    }
}

impl FromStr for BookingName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let [region, booking] = parts(text, ["regions", "bookings"], BOOKING)?;
        Ok(Self {
            region: region.parse()?,
            booking: booking.parse()?,
        })
    }
}

impl fmt::Display for ClinicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regions/{}/clinics/{}", self.region, self.clinic)
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/slots/{}", self.clinic, self.slot)
    }
}

impl fmt::Display for LeftoversName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/leftovers/{}", self.clinic, self.round)
    }
}

impl fmt::Display for HoldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/holds/{}", self.clinic, self.hold)
    }
}

impl fmt::Display for IncidentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/incidents/{}", self.clinic, self.incident)
    }
}

impl fmt::Display for BookingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regions/{}/bookings/{}", self.region, self.booking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calling_system_serves_one_clinic() {
        let name = |text: &str| text.parse::<ClinicName>().expect("a clinic");
        let system = |text: &str| text.parse::<CallingSystem>().expect("a slug");
        let mine = name("regions/seoul/clinics/1168-0042");
        assert!(mine.is_served_by(&system(&mine.calling_system())));
        for other in [
            "1168-0042",
            "seoul-1168-0042",
            "seoul",
            "seoul--1168-0043",
            "busan--1168-0042",
        ] {
            assert!(!mine.is_served_by(&system(other)), "{other}");
        }
        // Written alike, and still not both served.
        let (first, second) = (
            name("regions/a--b/clinics/c"),
            name("regions/a/clinics/b--c"),
        );
        let both = system("a--b--c");
        assert!(!first.is_served_by(&both) && second.is_served_by(&both));
    }

    #[test]
    fn names_round_trip_and_refuse_everything_else() {
        let slot = "regions/seoul/clinics/1168-0042/slots/17";
        assert_eq!(
            slot.parse::<SlotName>().map(|n| n.to_string()),
            Ok(slot.to_owned())
        );
        for bad in [
            "",
            "regions/seoul",
            "regions/seoul/clinics/1/slots/0",
            "regions/seoul/clinics/1/slots/017",
            "regions/seoul/clinics/1/slots/+7",
            "regions/seoul/clinics/1/slots/7/",
            "regions/Seoul/clinics/1/slots/7",
            "regions/seoul/clinics//slots/7",
            "regions/seoul/clinics/1/slots/9223372036854775808",
        ] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad:?} passed");
        }
    }
}
