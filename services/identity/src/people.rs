//! Who has which place: one row per person and campaign; bucket and ticket are written once and the same for ever.
//!
//! Invariant: a place is answered only after it is durable, and whoever asks again gets the same one. Two real
//! backends, one contract suite over both. Neither knows a name or a birth date: people are keyed hashes here.

use async_trait::async_trait;
use domain::place::{DrawTicket, Place};
use domain::region_change::Receipt;
use domain::{CallingSystem, CampaignId, CohortId, PersonId, RegionId, Serial};

mod buckets;
mod changes;
mod group;
pub mod postgres;
pub mod sqlite;

pub use buckets::{ClosedBucket, DrawSeed, KeptDocument, OpenBucket};
pub use changes::{Change, Standing};

/// The cause of a fault, kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong around the store. Everything may always be repeated: all of it is idempotent.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// More is waiting than can be written in time; nothing was written.
    #[error("the people store is overloaded")]
    Overloaded,
    /// Not reachable, or the outcome is not known.
    #[error("the people store is not available")]
    Unavailable {
        /// Why.
        #[source]
        source: BoxError,
    },
}

/// Asks for a person's place. What is asked for counts only if the person has none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The campaign.
    pub campaign: CampaignId,
    /// The person.
    pub person: PersonId,
    /// The cohort whose room the person waits in.
    pub cohort: CohortId,
    /// The region in which the person wants to book.
    pub region: RegionId,
    /// The person's name in the draw.
    pub ticket: DrawTicket,
    /// Who asked first.
    pub caller: CallingSystem,
}

/// A person's place, as it is for ever, and the region it is good in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The cohort whose room the person waits in.
    pub cohort: CohortId,
    /// The only region in which the person may book.
    pub region: RegionId,
    /// Rises at each change of region.
    pub serial: Serial,
    /// Bucket and draw ticket.
    pub place: Place,
    /// Where a change of region that has not ended goes to.
    pub moving_to: Option<RegionId>,
}

/// A store of people. Cheap to share; every method may be called at any time.
#[async_trait]
pub trait People: Send + Sync {
    /// Gives the person their place, or the one they have. Asks that come together are committed together.
    async fn stamp(&self, ask: Stamp) -> Result<Placed, Fault>;

    /// The place a person has.
    async fn place(&self, campaign: &CampaignId, person: PersonId)
    -> Result<Option<Placed>, Fault>;

    /// Notes durably that the person is about to leave, if the permit named is the one in force, another region is
    /// wanted, and nothing is noted yet. Gives the person's place after that.
    async fn begin_change(&self, change: &Change) -> Result<Option<Placed>, Fault>;

    /// Ends the change of region that a verified receipt is about, and gives the person's place after it. Repeating is
    /// right. `None` = the receipt is not about the person's newest change.
    async fn complete_change(&self, receipt: &Receipt) -> Result<Option<Placed>, Fault>;

    /// Closes the bucket `id` of a room and opens the next, or says how it was closed before: repeating is always
    /// right. Nobody whose place was answered is missing from it, and nobody comes into it any more. `None` = it has
    /// not been opened yet.
    async fn close_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        id: u32,
    ) -> Result<Option<ClosedBucket>, Fault>;

    /// The room's open bucket, its people counted up to `count_up_to`; holds nobody up. `None` = nobody has asked for
    /// a place yet.
    async fn open_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        count_up_to: u64,
    ) -> Result<Option<OpenBucket>, Fault>;

    /// Closed buckets from `from` on, by id, at most `limit`.
    async fn closed_buckets(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        from: u32,
        limit: u32,
    ) -> Result<Vec<ClosedBucket>, Fault>;

    /// The draw tickets of a bucket, sorted. Final once the bucket is closed.
    async fn tickets(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        bucket: u32,
    ) -> Result<Vec<DrawTicket>, Fault>;

    /// Keeps the seed of the room's draw, unless there is one: the one that is kept is returned.
    async fn keep_seed(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        seed: DrawSeed,
    ) -> Result<DrawSeed, Fault>;

    /// The seed of the room's draw.
    async fn seed(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<DrawSeed>, Fault>;

    /// Keeps versions of a room's document; one that is kept already stays as it is.
    async fn keep_documents(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        documents: &[KeptDocument],
    ) -> Result<(), Fault>;

    /// The newest version kept of a room's document.
    async fn newest_document(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<KeptDocument>, Fault>;

    /// Kept versions of a room's document above `after`, in order, at most `limit`.
    async fn documents(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<KeptDocument>, Fault>;

    /// Whether the store can be reached now.
    async fn check(&self) -> Result<(), Fault>;
}

// === impl Fault ===

impl Fault {
    pub(crate) fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            source: source.into(),
        }
    }
}

/// A row that was not written by this program.
#[derive(Debug, thiserror::Error)]
#[error("the people store has a row that cannot be read: {what}")]
struct Corrupt {
    what: &'static str,
}

/// The columns of a place, as both backends read them.
struct Columns<'a> {
    cohort: &'a str,
    region: &'a str,
    serial: i64,
    bucket: i64,
    ticket: &'a [u8],
    moving_to: Option<&'a str>,
}

impl Columns<'_> {
    fn placed(&self) -> Result<Placed, Corrupt> {
        let corrupt = |what| Corrupt { what };
        Ok(Placed {
            cohort: self.cohort.parse().map_err(|_| corrupt("cohort"))?,
            region: self.region.parse().map_err(|_| corrupt("region"))?,
            serial: Serial(u64::try_from(self.serial).map_err(|_| corrupt("serial"))?),
            place: Place {
                bucket: u32::try_from(self.bucket).map_err(|_| corrupt("bucket"))?,
                ticket: DrawTicket(self.ticket.try_into().map_err(|_| corrupt("ticket"))?),
            },
            moving_to: self
                .moving_to
                .map(|region| region.parse().map_err(|_| corrupt("moving_to")))
                .transpose()?,
        })
    }
}
