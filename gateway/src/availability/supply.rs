//! Supply figures: read from the ledger for everybody together, at most once a second, and added up as asked.
//!
//! Invariant: all figures of an answer are of one moment; however many ask, one read at a time is under way.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use domain::name::ClinicName;
use domain::{CallingSystem, Refusal, RegionId, VaccineId};
use proto::availability::{GetSupplyRequest, GetSupplyResponse, Supply as PbSupply, SupplyLevel};
use proto::convert::Fields;
use proto::encoded::Encoded;
use proto::inventory::{ReadSupply, SupplyFigures, SupplyRow, answer, command};
use proto::status::Refused;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::filter::{district, page_size};
use super::page::{Listing, PageKey};
use super::snapshot::EncodedAnswers;
use crate::routing::{Call, Router};

const FRESH_FOR: Duration = Duration::from_secs(1);
/// Between place and vaccine in a page's offset; in no name.
const BETWEEN: char = '\n';

/// Answers questions about supply. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Supply(Arc<Inner>);

struct Inner {
    regions: HashMap<String, Kept>,
    router: Router,
    key: PageKey,
    /// As whom the figures are asked for.
    ourselves: CallingSystem,
}

struct Kept {
    region: RegionId,
    figures: ArcSwapOption<Read>,
    reading: Mutex<()>,
}

/// Figures with the answers encoded from them.
struct Read {
    figures: SupplyFigures,
    until: Instant,
    answers: EncodedAnswers<GetSupplyRequest>,
}

impl Supply {
    pub(crate) fn new(
        regions: impl IntoIterator<Item = RegionId>,
        router: Router,
        key: PageKey,
    ) -> Self {
        let kept = |region: RegionId| {
            let kept = Kept {
                region: region.clone(),
                figures: ArcSwapOption::empty(),
                reading: Mutex::new(()),
            };
            (region.as_str().to_owned(), kept)
        };
        Self(Arc::new(Inner {
            regions: regions.into_iter().map(kept).collect(),
            router,
            key,
            ourselves: "gateway".parse().expect("a slug"),
        }))
    }

    pub(crate) async fn get(
        &self,
        request: &GetSupplyRequest,
        deadline: Instant,
    ) -> Result<Encoded, Refused> {
        let kept = self.0.regions.get(&request.region);
        let kept = kept.ok_or_else(crate::rpc::unknown_region)?;
        let page = Page::parse(kept, request, &self.0.key)?;
        let read = self.read(kept, deadline).await?;
        if let Some(answer) = read.answers.get(request) {
            return Ok(answer);
        }
        let answer = Encoded::of(&page.answer(&read.figures, &self.0.key));
        read.answers.put(request, &answer);
        Ok(answer)
    }

    /// Fresh figures; where they cannot be had, those there are: they say how old they are.
    async fn read(&self, kept: &Kept, deadline: Instant) -> Result<Arc<Read>, Refused> {
        let known = kept.figures.load_full();
        if let Some(known) = known.as_ref().filter(|known| Instant::now() < known.until) {
            return Ok(Arc::clone(known));
        }
        let _reading = match (kept.reading.try_lock(), &known) {
            (Ok(reading), _) => reading,
            (Err(_), Some(known)) => return Ok(Arc::clone(known)),
            (Err(_), None) => timeout_at(deadline, kept.reading.lock())
                .await
                .map_err(|_| Refusal::Unavailable)?,
        };
        if let Some(new) = kept.figures.load_full()
            && Instant::now() < new.until
        {
            return Ok(new);
        }
        let call = Call {
            caller: self.0.ourselves.clone(),
            oversees: false,
            region: kept.region.clone(),
            clinic: None,
            deadline,
            action: command::Action::ReadSupply(ReadSupply {}),
        };
        match (self.0.router.ask(call).await, known) {
            (Ok(answer::Outcome::ReadSupply(figures)), _) => {
                let read = Arc::new(Read {
                    figures,
                    until: Instant::now() + FRESH_FOR,
                    answers: EncodedAnswers::default(),
                });
                kept.figures.store(Some(Arc::clone(&read)));
                Ok(read)
            }
            (_, Some(known)) => Ok(known),
            (Err(why), None) => Err(why),
            (Ok(_), None) => Err(Refusal::Unavailable.into()),
        }
    }
}

/// A page of figures to be listed.
struct Page {
    region: RegionId,
    listing: Listing,
    level: SupplyLevel,
    district: Option<String>,
    clinic: Option<ClinicName>,
    vaccine: Option<VaccineId>,
    page_size: usize,
    /// The last row of the page before: its place and vaccine.
    after: Option<(String, String)>,
}

impl Page {
    fn parse(kept: &Kept, request: &GetSupplyRequest, key: &PageKey) -> Result<Self, Refused> {
        let mut fields = Fields::default();
        let size = page_size(&mut fields, request.page_size);
        let district = district(&mut fields, &request.district);
        let clinic = fields.parse_optional::<ClinicName>("clinic", &request.clinic);
        if clinic
            .as_ref()
            .is_some_and(|clinic| clinic.region != kept.region)
        {
            fields.wrong("clinic", "must be a clinic of the region asked for");
        }
        let vaccine = fields.parse_optional("vaccine", &request.vaccine);
        let level = SupplyLevel::try_from(request.level).ok();
        if level.is_none() {
            fields.wrong("level", "must be one of SupplyLevel");
        }
        let (page_size, level) = fields.finish(size.zip(level))?;
        let listing = Listing::of("get_supply")
            .with(request.region.as_bytes())
            .with(&request.level.to_be_bytes())
            .with(request.district.as_bytes())
            .with(request.clinic.as_bytes())
            .with(request.vaccine.as_bytes());
        let after = match request.page_token.as_str() {
            "" => None,
            page => {
                let opened = key
                    .open(&listing, page)
                    .and_then(|bytes| String::from_utf8(bytes).ok());
                let offset = opened.as_deref().and_then(|text| text.split_once(BETWEEN));
                let (place, vaccine) = offset.ok_or(Refusal::PageTokenInvalid)?;
                Some((place.to_owned(), vaccine.to_owned()))
            }
        };
        Ok(Self {
            region: kept.region.clone(),
            listing,
            level,
            district,
            clinic,
            vaccine,
            page_size,
            after,
        })
    }

    fn answer(&self, figures: &SupplyFigures, key: &PageKey) -> GetSupplyResponse {
        let mut sums: BTreeMap<(String, String), PbSupply> = BTreeMap::new();
        for row in figures.rows.iter().filter(|row| self.wants(row)) {
            let place = match self.level {
                SupplyLevel::Unspecified | SupplyLevel::Region => String::new(),
                SupplyLevel::District => row.district.clone(),
                SupplyLevel::Clinic => row.clinic.clone(),
            };
            let sum = sums
                .entry((place, row.vaccine.clone()))
                .or_insert_with(|| self.empty(row));
            add(sum, row);
        }
        let rest = sums
            .into_iter()
            .filter(|(place, _)| self.after.as_ref().is_none_or(|after| place > after));
        let mut rest: Vec<_> = rest.take(self.page_size + 1).collect();
        let more = rest.len() > self.page_size;
        rest.truncate(self.page_size);
        let next = rest.last().filter(|_| more).map(|((place, vaccine), _)| {
            let offset = format!("{place}{BETWEEN}{vaccine}");
            key.seal(&self.listing, offset.as_bytes())
        });
        GetSupplyResponse {
            supply: rest.into_iter().map(|(_, supply)| supply).collect(),
            next_page_token: next.unwrap_or_default(),
            as_of: figures.as_of,
        }
    }

    fn wants(&self, row: &SupplyRow) -> bool {
        self.district.as_ref().is_none_or(|d| *d == row.district)
            && self
                .clinic
                .as_ref()
                .is_none_or(|name| name.clinic.as_str() == row.clinic)
            && self
                .vaccine
                .as_ref()
                .is_none_or(|vaccine| vaccine.as_str() == row.vaccine)
    }

    fn empty(&self, row: &SupplyRow) -> PbSupply {
        let clinic = self.level == SupplyLevel::Clinic;
        let of_district = clinic || self.level == SupplyLevel::District;
        PbSupply {
            district: if of_district {
                row.district.clone()
            } else {
                String::new()
            },
            clinic: if clinic {
                format!("regions/{}/clinics/{}", self.region, row.clinic)
            } else {
                String::new()
            },
            vaccine: row.vaccine.clone(),
            ..PbSupply::default()
        }
    }
}

fn add(sum: &mut PbSupply, row: &SupplyRow) {
    sum.received += row.received;
    sum.wasted += row.wasted;
    sum.walk_in += row.walk_in;
    sum.opened += row.opened;
    sum.held += row.held;
    sum.booked += row.booked;
    sum.given += row.given;
    sum.left += row.left;
}
