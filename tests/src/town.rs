//! A town that books: a cluster of one region with clinics on known shards and people whose permits are at hand.
//!
//! Invariant: places are plenty, so that no refusal is expected from anybody.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{
    ApplyCampaignRequest, ApplyClinicsRequest, ClinicSpec, OpenRoomRequest, SlotSpec, StockSpec,
};
use proto::availability::ListSlotsRequest;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::{BookRequest, BookResponse, CancelBookingRequest};
use proto::identity::IssuePermitRequest;
use proto::identity::identity_service_client::IdentityServiceClient;
use runtime::keyspace::{EtcdConfig, Keyspace};
use runtime::transport;
use serde_json::{Value, json};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::await_until::{await_ok, await_some};
use crate::cluster::{Cluster, Options as ClusterOptions, database};
use crate::postgres::Session;
use crate::provider::Provider;

/// The one region.
pub const REGION: &str = "jeju";
/// The one campaign.
pub const CAMPAIGN: &str = "town";
/// Its one cohort.
pub const COHORT: &str = "fifties";
const VACCINE: &str = "demo-mrna";
/// Permits asked for at once.
const ISSUED_AT_ONCE: usize = 64;
/// What one call may apply.
const CLINICS_AT_ONCE: usize = 200;
/// How long a device waits for one answer before it sends the same request again.
const PATIENCE: Duration = Duration::from_secs(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How large a town is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shards of the region.
    pub shards: u32,
    /// Clinics of each shard, each with one slot.
    pub clinics: u32,
    /// Places of each slot: more than anybody books there.
    pub places: u32,
    /// Permits to be had.
    pub people: usize,
    /// Gateways.
    pub gateways: usize,
    /// The last so many of them tell places without looking at permits' signatures.
    pub trusting_gateways: usize,
    /// Inventories.
    pub inventories: usize,
    /// Identities.
    pub identities: usize,
    /// Changes a second that each inventory is held to; 0 = none.
    pub bookings_per_second_max: u64,
}

impl Options {
    /// Two shards of four clinics each, two gateways, three inventories, two identities.
    #[must_use]
    pub fn with_people(people: usize) -> Self {
        Self {
            shards: 2,
            clinics: 4,
            places: 50_000,
            people,
            gateways: 2,
            trusting_gateways: 0,
            inventories: 3,
            identities: 2,
            bookings_per_second_max: 0,
        }
    }
}

/// A running cluster and what booking there takes.
pub struct Town {
    /// The processes.
    pub cluster: Cluster,
    options: Options,
    keyspace: Keyspace,
    /// Slot names by shard, one of each clinic.
    pub slots: Vec<Vec<String>>,
    /// Permits, to be taken from the end.
    pub permits: Vec<String>,
    /// The gateways.
    pub callers: Vec<Caller>,
}

/// Who decides a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where it listens.
    pub addr: String,
    /// What fences its writes.
    pub epoch: u64,
}

/// One gateway as a calling system sees it.
#[derive(Clone, Debug)]
pub struct Caller(InterceptedService<Channel, Development>);

/// Says who calls, in development mode.
#[derive(Clone, Copy, Debug)]
pub struct Development;

impl Interceptor for Development {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = tonic::metadata::MetadataValue::from_static("dev");
        request.metadata_mut().insert("x-doseline-caller", caller);
        Ok(request)
    }
}

// === impl Town ===

impl Town {
    /// Starts everything, applies campaign and clinics, and waits until every gateway shows them.
    pub async fn closed(folder: &Path, options: Options) -> anyhow::Result<Self> {
        let cluster = Cluster::start(ClusterOptions {
            shards: options.shards,
            gateways: options.gateways,
            trusting_gateways: options.trusting_gateways,
            inventories: options.inventories,
            identities: options.identities,
            bookings_per_second_max: options.bookings_per_second_max,
            ..ClusterOptions::new(&[REGION], folder)
        })
        .await?;
        let keyspace = Keyspace::etcd(EtcdConfig::new(cluster.etcd.endpoints())).await?;
        let callers = cluster
            .gateways
            .iter()
            .map(|gateway| Caller::of(&gateway.addr));
        let callers = callers.collect::<anyhow::Result<Vec<_>>>()?;
        let mut town = Self {
            cluster,
            options,
            keyspace,
            slots: Vec::new(),
            permits: Vec::new(),
            callers,
        };
        town.apply().await?;
        town.slots = town.shown_slots().await?;
        Ok(town)
    }

    /// The same with doors open and permits at hand.
    pub async fn start(folder: &Path, options: Options) -> anyhow::Result<Self> {
        let mut town = Self::closed(folder, options).await?;
        town.permits = town.issue(0..town.options.people).await?;
        town.open_doors().await?;
        Ok(town)
    }

    /// Lets everybody in who has a permit, and takes some permits to book once everywhere.
    pub async fn open_doors(&mut self) -> anyhow::Result<()> {
        self.open_room(0).await?;
        self.first_booking().await
    }

    /// Opens the doors for so many people in a thousand seconds; 0 = for everybody at once.
    pub async fn open_room(&self, people_per_kilosecond: u64) -> anyhow::Result<()> {
        let room = OpenRoomRequest {
            campaign: CAMPAIGN.to_owned(),
            cohort: COHORT.to_owned(),
            people_per_kilosecond,
        };
        CampaignAdminServiceClient::new(self.identity_admin()?)
            .open_room(room)
            .await?;
        Ok(())
    }

    /// How many shards its region has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.options.shards
    }

    /// Kills a shard's owner with -9 and says how long it took until one of its clinics booked again, at most `bound`.
    /// Everything is ready again afterwards.
    pub async fn kill_owner(
        &mut self,
        shard: u32,
        kill: usize,
        bound: Duration,
    ) -> anyhow::Result<Duration> {
        let owner = self.owner(shard).await?;
        let at = self.inventory(&owner)?;
        let (permit, request) = (self.permit()?, Uuid::new_v4());
        let slots = &self.slots[shard as usize];
        let slot = slots[kill % slots.len()].clone();
        let caller = self.callers[kill % self.callers.len()].clone();

        let began = Instant::now();
        self.cluster.inventories[at].process.kill()?;
        await_ok(
            &format!("clinics book again after kill {kill}"),
            bound,
            || caller.book(&permit, request, 0, &slot, PATIENCE),
        )
        .await?;
        let took = began.elapsed();

        let next = self.owner(shard).await?;
        anyhow::ensure!(
            next.epoch > owner.epoch,
            "{next:?} books after {owner:?} was killed"
        );
        self.cluster.inventories[at].process.restart()?;
        self.cluster.await_ready(SETTLED_WITHIN).await?;
        Ok(took)
    }

    /// The owner of a shard, once it is one whose epoch the ledger gave.
    pub async fn owner(&self, shard: u32) -> anyhow::Result<Owner> {
        let key = format!("/doseline/{REGION}/shard/{shard}/owner");
        let owner = await_some("an active owner", SETTLED_WITHIN, || async {
            let entry = self.keyspace.get(&key).await.ok().flatten()?;
            let value: Value = serde_json::from_slice(&entry.value).ok()?;
            let active = value["state"] == "ACTIVE";
            let addr = value["addr"].as_str()?.to_owned();
            let epoch = value["epoch"].as_u64()?;
            active.then_some(Owner { addr, epoch })
        });
        owner.await
    }

    /// Which inventory that is.
    pub fn inventory(&self, owner: &Owner) -> anyhow::Result<usize> {
        let at = self
            .cluster
            .inventories
            .iter()
            .position(|part| part.addr == owner.addr);
        at.with_context(|| format!("nobody listens at {}", owner.addr))
    }

    /// A session on the region's ledger.
    pub async fn ledger(&self) -> anyhow::Result<Session> {
        self.cluster.postgres.session(&database(REGION)).await
    }

    /// A permit nobody has used.
    pub fn permit(&mut self) -> anyhow::Result<String> {
        self.permits.pop().context("more permits are needed")
    }

    /// Books once on each shard through each gateway: routes are known and sessions open.
    async fn first_booking(&mut self) -> anyhow::Result<()> {
        for shard in 0..self.options.shards {
            for at in 0..self.callers.len() {
                let (permit, request) = (self.permit()?, Uuid::new_v4());
                let slot = self.slots[shard as usize][0].clone();
                let caller = self.callers[at].clone();
                let second = Duration::from_secs(1);
                await_ok("the first booking", SETTLED_WITHIN, || {
                    caller.book(&permit, request, 0, &slot, second)
                })
                .await?;
            }
        }
        Ok(())
    }

    fn identity_admin(&self) -> anyhow::Result<Channel> {
        channel(&self.cluster.identities[0].admin)
    }

    async fn apply(&self) -> anyhow::Result<()> {
        let session = self.ledger().await?;
        let day = "SELECT to_char(now() + make_interval(days => $1), 'YYYY-MM-DD')";
        let dose_day: String = session.query_one(day, &[&9]).await?.get(0);
        let last: String = session.query_one(day, &[&90]).await?.get(0);
        let document = json!({
            "campaign": CAMPAIGN, "time_zone": "Asia/Seoul", "regions": [REGION],
            "cohorts": [{
                "cohort": COHORT, "born_from": "1962-01-01", "born_to": "1971-12-31",
                "opens_at": "2021-07-19T20:00:00+09:00", "permits_from": "2021-07-01",
            }],
            "rules": {
                "vaccines": [VACCINE], "dose_interval": { "min_days": 21, "max_days": 42 }, "hold_ttl_secs": 120,
            },
            "last_appointment": last, "permit_ttl_secs": 7_200,
        });
        let request = ApplyCampaignRequest {
            document: document.to_string(),
            validate_only: false,
        };
        CampaignAdminServiceClient::new(self.identity_admin()?)
            .apply_campaign(request)
            .await?;
        let Options {
            shards,
            clinics,
            places,
            ..
        } = self.options;
        let all = (0..shards).flat_map(|shard| (0..clinics).map(move |number| (shard, number)));
        let clinics: Vec<_> = all
            .map(|(shard, number)| clinic(shard, number, &dose_day, places))
            .collect();
        let admin = channel(&self.cluster.inventories[0].admin)?;
        let mut admin = ClinicAdminServiceClient::new(admin);
        for some in clinics.chunks(CLINICS_AT_ONCE) {
            let request = ApplyClinicsRequest {
                region: REGION.to_owned(),
                clinics: some.to_vec(),
                validate_only: false,
            };
            admin.apply_clinics(request).await?;
        }
        Ok(())
    }

    /// All slots by shard, as every gateway shows them.
    async fn shown_slots(&self) -> anyhow::Result<Vec<Vec<String>>> {
        let wanted = self.options.shards as usize * self.options.clinics as usize;
        let mut shown = Vec::new();
        for caller in &self.callers {
            shown = await_some("all slots are shown", SETTLED_WITHIN, || async {
                let all = caller.slots().await.ok()?;
                (all.len() == wanted).then_some(all)
            })
            .await?;
        }
        let of_shard = |shard: u32| {
            let prefix = format!("regions/{REGION}/clinics/{}-", 5_000 + shard);
            let own = shown.iter().filter(|name| name.starts_with(&prefix));
            own.cloned().collect()
        };
        Ok((0..self.options.shards).map(of_shard).collect())
    }

    /// What asks for the permits of the people with these numbers. Good for some minutes.
    pub fn permit_requests(&self, people: Range<usize>) -> anyhow::Result<Vec<IssuePermitRequest>> {
        let provider = Provider::open(self.cluster.folder())?;
        let request = |number: usize| IssuePermitRequest {
            campaign: CAMPAIGN.to_owned(),
            region: REGION.to_owned(),
            assertion: provider.assertion(&format!("town-{number}"), "1965-06-15"),
        };
        Ok(people.map(request).collect())
    }

    /// Permits of the people with these numbers.
    async fn issue(&self, people: Range<usize>) -> anyhow::Result<Vec<String>> {
        let requests = self.permit_requests(people)?.into_iter().enumerate();
        let permits = futures::stream::iter(requests).map(|(at, request)| {
            let caller = self.callers[at % self.callers.len()].clone();
            async move { caller.permit(request).await }
        });
        Ok(permits.buffered(ISSUED_AT_ONCE).try_collect().await?)
    }
}

// === impl Caller ===

impl Caller {
    /// A connection of its own to a gateway.
    pub fn of(addr: &str) -> anyhow::Result<Self> {
        Ok(Self(InterceptedService::new(channel(addr)?, Development)))
    }

    /// For clients of other services.
    #[must_use]
    pub fn service(&self) -> InterceptedService<Channel, Development> {
        self.0.clone()
    }

    /// Asks for a permit.
    pub async fn permit(&self, request: IssuePermitRequest) -> Result<String, Status> {
        let mut client = IdentityServiceClient::new(self.0.clone());
        let issued = client.issue_permit(request).await?;
        Ok(issued.into_inner().permit)
    }

    /// The names of all slots of the region.
    async fn slots(&self) -> Result<Vec<String>, Status> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListSlotsRequest {
                region: REGION.to_owned(),
                page_size: 500,
                page_token,
                ..ListSlotsRequest::default()
            };
            let page = AvailabilityServiceClient::new(self.0.clone())
                .list_slots(request)
                .await?
                .into_inner();
            all.extend(page.slots.into_iter().map(|slot| slot.name));
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// One call, never repeated here.
    pub async fn book(
        &self,
        permit: &str,
        request_id: Uuid,
        claim_version: u64,
        slot: &str,
        deadline: Duration,
    ) -> Result<BookResponse, Status> {
        let request = BookRequest {
            permit: permit.to_owned(),
            request_id: request_id.to_string(),
            claim_version,
            slots: vec![slot.to_owned()],
        };
        let answer = BookingServiceClient::new(self.0.clone())
            .book(timed(request, deadline))
            .await;
        answer.map(tonic::Response::into_inner)
    }

    /// One call, never repeated here; answers the claim's version.
    pub async fn cancel(
        &self,
        permit: &str,
        claim_version: u64,
        booking: &str,
        deadline: Duration,
    ) -> Result<u64, Status> {
        let request = CancelBookingRequest {
            permit: permit.to_owned(),
            request_id: Uuid::new_v4().to_string(),
            claim_version,
            booking: booking.to_owned(),
            dose: 0,
        };
        let mut client = BookingServiceClient::new(self.0.clone());
        let answer = client.cancel_booking(timed(request, deadline)).await;
        answer.map(|answer| answer.into_inner().claim_version)
    }
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn channel(addr: &str) -> anyhow::Result<Channel> {
    Ok(transport::connect(
        addr,
        None,
        &transport::ClientSettings::default(),
    )?)
}

fn clinic_id(shard: u32, number: u32) -> String {
    format!("{}-{number:04}", 5_000 + shard)
}

fn clinic(shard: u32, number: u32, day: &str, places: u32) -> ClinicSpec {
    ClinicSpec {
        clinic: clinic_id(shard, number),
        display_name: format!("Clinic {number} of shard {shard}"),
        district: "Town".to_owned(),
        latitude: 33.4,
        longitude: 126.5,
        shard: Some(shard),
        stock: vec![StockSpec {
            vaccine: VACCINE.to_owned(),
            received: places,
        }],
        slots: vec![SlotSpec {
            starts_at: format!("{day}T09:00:00+09:00"),
            day: day.to_owned(),
            vaccine: VACCINE.to_owned(),
            dose: 1,
            capacity: places,
            closed: false,
        }],
    }
}
