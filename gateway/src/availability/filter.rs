//! What a listing asks for, parsed with every wrong field told, and applied to a view.

use std::str::FromStr;

use domain::name::ClinicName;
use domain::{ClinicId, Refusal, RegionId, SlotId, Timestamp, VaccineId};
use proto::availability::{ListClinicsRequest, ListSlotsRequest};
use proto::common::Date;
use proto::convert::{Fields, day_number};
use proto::status::Refused;

use super::page::{Listing, PageKey};
use super::shards::{Clinic, Slot};
use super::snapshot::View;

const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1_000;
/// Names of districts are short; a long one would only make tokens and caches long.
const DISTRICT_LENGTH_MAX: usize = 128;

/// A page of clinics to be listed.
#[derive(Debug)]
pub(super) struct ClinicFilter {
    pub(super) listing: Listing,
    pub(super) page_size: usize,
    district: Option<String>,
    after: Option<ClinicId>,
}

/// A page of slots to be listed.
#[derive(Debug)]
pub(super) struct SlotFilter {
    pub(super) listing: Listing,
    pub(super) page_size: usize,
    district: Option<String>,
    clinic: Option<ClinicId>,
    vaccine: Option<VaccineId>,
    from: Option<i32>,
    to: Option<i32>,
    dose: Option<u32>,
    include_full: bool,
    after: Option<SlotOffset>,
}

/// The last slot of the page before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotOffset {
    pub(super) clinic: ClinicId,
    pub(super) starts_at: Timestamp,
    pub(super) slot: SlotId,
}

impl ClinicFilter {
    pub(super) fn parse(request: &ListClinicsRequest, key: &PageKey) -> Result<Self, Refused> {
        let mut fields = Fields::default();
        let page_size = page_size(&mut fields, request.page_size);
        let district = district(&mut fields, &request.district);
        let page_size = fields.finish(page_size)?;
        let listing = Listing::of("list_clinics")
            .with(request.region.as_bytes())
            .with(request.district.as_bytes());
        let after = opened(key, &listing, &request.page_token, |offset| {
            ClinicId::from_str(std::str::from_utf8(offset).ok()?).ok()
        })?;
        Ok(Self {
            listing,
            page_size,
            district,
            after,
        })
    }

    /// The page's clinics, and the offset of the next page if there is one.
    pub(super) fn page<'a>(&self, view: &'a View) -> (Vec<&'a Clinic>, Option<Vec<u8>>) {
        let from = self.after.as_ref().map_or(0, |after| {
            view.clinics
                .partition_point(|clinic| clinic.clinic.id <= *after)
        });
        let mut found: Vec<&Clinic> = view.clinics[from..]
            .iter()
            .map(|view| view.clinic.as_ref())
            .filter(|clinic| self.district.as_ref().is_none_or(|d| *d == clinic.district))
            .take(self.page_size + 1)
            .collect();
        let more = found.len() > self.page_size;
        found.truncate(self.page_size);
        let offset = found
            .last()
            .filter(|_| more)
            .map(|last| last.id.as_str().as_bytes().to_vec());
        (found, offset)
    }
}

impl SlotFilter {
    pub(super) fn parse(
        region: &RegionId,
        request: &ListSlotsRequest,
        key: &PageKey,
    ) -> Result<Self, Refused> {
        let mut fields = Fields::default();
        let page_size = page_size(&mut fields, request.page_size);
        let district = district(&mut fields, &request.district);
        let clinic = fields.parse_optional::<ClinicName>("clinic", &request.clinic);
        if clinic
            .as_ref()
            .is_some_and(|clinic| clinic.region != *region)
        {
            fields.wrong("clinic", "must be a clinic of the region asked for");
        }
        let vaccine = fields.parse_optional("vaccine", &request.vaccine);
        let mut day = |name: &str, date: Option<&Date>| {
            let number = day_number(date?);
            if number.is_none() {
                fields.wrong(name, "must be a day of the calendar, years 1 to 9999");
            }
            number
        };
        let (from, to) = (
            day("from", request.from.as_ref()),
            day("to", request.to.as_ref()),
        );
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            fields.wrong("to", "must not be before from");
        }
        if request.dose > 2 {
            fields.wrong("dose", "must be 1 or 2, or 0 for all");
        }
        let page_size = fields.finish(page_size)?;
        let listing = slot_listing(request, from, to);
        let after = opened(key, &listing, &request.page_token, SlotOffset::decode)?;
        Ok(Self {
            listing,
            page_size,
            district,
            clinic: clinic.map(|name| name.clinic),
            vaccine,
            from,
            to,
            dose: (request.dose > 0).then_some(request.dose),
            include_full: request.include_full,
            after,
        })
    }

    /// The page's slots, and the offset of the next page if there is one.
    pub(super) fn page<'a>(
        &self,
        view: &'a View,
    ) -> (Vec<(&'a Clinic, &'a Slot)>, Option<SlotOffset>) {
        let first = self
            .clinic
            .as_ref()
            .max(self.after.as_ref().map(|after| &after.clinic));
        let from = first.map_or(0, |first| {
            view.clinics.partition_point(|c| c.clinic.id < *first)
        });
        let clinics = view.clinics[from..]
            .iter()
            .take_while(|view| {
                self.clinic
                    .as_ref()
                    .is_none_or(|only| view.clinic.id == *only)
            })
            .filter(|view| {
                self.district
                    .as_ref()
                    .is_none_or(|d| *d == view.clinic.district)
            });
        let mut found: Vec<(&Clinic, &Slot)> = clinics
            .flat_map(|view| {
                let seen = self
                    .after
                    .as_ref()
                    .filter(|after| after.clinic == view.clinic.id);
                let from = seen.map_or(0, |after| {
                    let last = (after.starts_at, after.slot);
                    view.slots
                        .partition_point(|slot| (slot.starts_at, slot.id) <= last)
                });
                view.slots[from..]
                    .iter()
                    .map(|slot| (view.clinic.as_ref(), slot))
            })
            .filter(|(_, slot)| self.wants(slot))
            .take(self.page_size + 1)
            .collect();
        let more = found.len() > self.page_size;
        found.truncate(self.page_size);
        let offset = found
            .last()
            .filter(|_| more)
            .map(|(clinic, slot)| SlotOffset {
                clinic: clinic.id.clone(),
                starts_at: slot.starts_at,
                slot: slot.id,
            });
        (found, offset)
    }

    fn wants(&self, slot: &Slot) -> bool {
        (self.include_full || slot.left > 0)
            && self.from.is_none_or(|from| slot.day >= from)
            && self.to.is_none_or(|to| slot.day <= to)
            && self.dose.is_none_or(|dose| slot.dose == dose)
            && self
                .vaccine
                .as_ref()
                .is_none_or(|vaccine| slot.vaccine.as_ref() == vaccine.as_str())
    }
}

impl SlotOffset {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.clinic.as_str().len());
        bytes.extend_from_slice(&self.starts_at.as_micros().to_be_bytes());
        bytes.extend_from_slice(&self.slot.0.to_be_bytes());
        bytes.extend_from_slice(self.clinic.as_str().as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (starts_at, rest) = bytes.split_first_chunk::<8>()?;
        let (slot, clinic) = rest.split_first_chunk::<8>()?;
        Some(Self {
            clinic: std::str::from_utf8(clinic).ok()?.parse().ok()?,
            starts_at: Timestamp::from_micros(i64::from_be_bytes(*starts_at)),
            slot: SlotId(u64::from_be_bytes(*slot)),
        })
    }
}

fn slot_listing(request: &ListSlotsRequest, from: Option<i32>, to: Option<i32>) -> Listing {
    let day = |day: Option<i32>| day.map_or(i64::MIN, i64::from).to_be_bytes();
    Listing::of("list_slots")
        .with(request.region.as_bytes())
        .with(request.district.as_bytes())
        .with(request.clinic.as_bytes())
        .with(request.vaccine.as_bytes())
        .with(&day(from))
        .with(&day(to))
        .with(&request.dose.to_be_bytes())
        .with(&[u8::from(request.include_full)])
}

pub(super) fn page_size(fields: &mut Fields, asked: i32) -> Option<usize> {
    match usize::try_from(asked) {
        Ok(0) => Some(PAGE_SIZE),
        Ok(size) => Some(size.min(PAGE_SIZE_MAX)),
        Err(_) => {
            fields.wrong("page_size", "must not be negative");
            None
        }
    }
}

pub(super) fn district(fields: &mut Fields, district: &str) -> Option<String> {
    if district.len() > DISTRICT_LENGTH_MAX {
        fields.wrong("district", "must be at most 128 bytes long");
    }
    (!district.is_empty()).then(|| district.to_owned())
}

fn opened<T>(
    key: &PageKey,
    listing: &Listing,
    token: &str,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Refused> {
    if token.is_empty() {
        return Ok(None);
    }
    let offset = key.open(listing, token).and_then(|bytes| decode(&bytes));
    offset
        .map(Some)
        .ok_or_else(|| Refusal::PageTokenInvalid.into())
}
