//! A town that books: a cluster of one region with clinics on known shards and people whose permits are at hand.
//!
//! Invariant: places are plenty, so that no refusal is expected from anybody.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
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
use system_tests::await_until::{await_ok, await_some};
use system_tests::cluster::{Cluster, Options, database};
use system_tests::postgres::Session;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

/// The one region.
pub(crate) const REGION: &str = "jeju";
const CAMPAIGN: &str = "town";
const COHORT: &str = "fifties";
const VACCINE: &str = "demo-mrna";
/// Shards of the region.
pub(crate) const SHARDS: u32 = 2;
/// Clinics of each shard.
const CLINICS: u32 = 4;
/// More than any test books at one clinic.
const PLACES: u32 = 50_000;
/// Permits asked for at once.
const ISSUED_AT_ONCE: usize = 64;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A running cluster and what booking there takes.
pub(crate) struct Town {
    pub(crate) cluster: Cluster,
    keyspace: Keyspace,
    /// Slot names by shard, one of each clinic.
    pub(crate) slots: Vec<Vec<String>>,
    /// Permits, to be taken from the end.
    pub(crate) permits: Vec<String>,
    /// The gateways.
    pub(crate) callers: Vec<Caller>,
}

/// Who decides a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) addr: String,
    pub(crate) epoch: u64,
}

/// One gateway as a calling system sees it.
#[derive(Clone, Debug)]
pub(crate) struct Caller(InterceptedService<Channel, Development>);

/// Says who calls, in development mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Development;

impl Interceptor for Development {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = tonic::metadata::MetadataValue::from_static("dev");
        request.metadata_mut().insert("x-doseline-caller", caller);
        Ok(request)
    }
}

// === impl Town ===

impl Town {
    /// Starts everything, applies campaign and clinics, issues permits, opens the doors.
    pub(crate) async fn start(folder: &Path, people: usize) -> anyhow::Result<Self> {
        let options = Options {
            shards: SHARDS,
            ..Options::new(&[REGION], folder)
        };
        let cluster = Cluster::start(options).await?;
        let keyspace = Keyspace::etcd(EtcdConfig::new(cluster.etcd.endpoints())).await?;
        let callers = cluster
            .gateways
            .iter()
            .map(|gateway| Caller::of(&gateway.addr));
        let callers = callers.collect::<anyhow::Result<Vec<_>>>()?;
        let mut town = Self {
            cluster,
            keyspace,
            slots: Vec::new(),
            permits: Vec::new(),
            callers,
        };
        town.apply().await?;
        for shard in 0..SHARDS {
            let mut slots = Vec::new();
            for number in 0..CLINICS {
                slots.push(town.shown_slot(&clinic_id(shard, number)).await?);
            }
            town.slots.push(slots);
        }
        town.permits = town.issue(people).await?;
        let room = OpenRoomRequest {
            campaign: CAMPAIGN.to_owned(),
            cohort: COHORT.to_owned(),
            people_per_kilosecond: 0,
        };
        CampaignAdminServiceClient::new(town.identity_admin()?)
            .open_room(room)
            .await?;
        town.first_booking().await?;
        Ok(town)
    }

    /// The owner of a shard, once it is one whose epoch the ledger gave.
    pub(crate) async fn owner(&self, shard: u32) -> anyhow::Result<Owner> {
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
    pub(crate) fn inventory(&self, owner: &Owner) -> anyhow::Result<usize> {
        let at = self
            .cluster
            .inventories
            .iter()
            .position(|part| part.addr == owner.addr);
        at.with_context(|| format!("nobody listens at {}", owner.addr))
    }

    /// A session on the region's ledger.
    pub(crate) async fn ledger(&self) -> anyhow::Result<Session> {
        self.cluster.postgres.session(&database(REGION)).await
    }

    /// A permit nobody has used.
    pub(crate) fn permit(&mut self) -> anyhow::Result<String> {
        self.permits.pop().context("more permits are needed")
    }

    /// Books once on each shard through each gateway: routes are known and sessions open.
    async fn first_booking(&mut self) -> anyhow::Result<()> {
        for shard in 0..SHARDS {
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
        let shards = (0..SHARDS).flat_map(|shard| (0..CLINICS).map(move |number| (shard, number)));
        let clinics = shards
            .map(|(shard, number)| clinic(shard, number, &dose_day))
            .collect();
        let request = ApplyClinicsRequest {
            region: REGION.to_owned(),
            clinics,
            validate_only: false,
        };
        let admin = channel(&self.cluster.inventories[0].admin)?;
        ClinicAdminServiceClient::new(admin)
            .apply_clinics(request)
            .await?;
        Ok(())
    }

    /// The clinic's slot as every gateway shows it.
    async fn shown_slot(&self, clinic: &str) -> anyhow::Result<String> {
        let mut shown = String::new();
        for caller in &self.callers {
            let name = format!("{clinic} is shown");
            shown = await_some(&name, SETTLED_WITHIN, || async {
                let request = ListSlotsRequest {
                    region: REGION.to_owned(),
                    clinic: format!("regions/{REGION}/clinics/{clinic}"),
                    page_size: 1,
                    ..ListSlotsRequest::default()
                };
                let page = AvailabilityServiceClient::new(caller.0.clone())
                    .list_slots(request)
                    .await;
                page.ok()?.into_inner().slots.pop().map(|slot| slot.name)
            })
            .await?;
        }
        Ok(shown)
    }

    async fn issue(&self, people: usize) -> anyhow::Result<Vec<String>> {
        let seed = std::fs::read(
            self.cluster
                .folder()
                .join("development/development_provider.seed"),
        )?;
        let key = SigningKey::from_bytes(&seed.as_slice().try_into()?);
        let permits = futures::stream::iter(0..people).map(|number| {
            let mut identity =
                IdentityServiceClient::new(self.callers[number % self.callers.len()].0.clone());
            let request = IssuePermitRequest {
                campaign: CAMPAIGN.to_owned(),
                region: REGION.to_owned(),
                assertion: assertion(&key, number),
            };
            async move {
                identity
                    .issue_permit(request)
                    .await
                    .map(|issued| issued.into_inner().permit)
            }
        });
        Ok(permits.buffered(ISSUED_AT_ONCE).try_collect().await?)
    }
}

// === impl Caller ===

impl Caller {
    fn of(addr: &str) -> anyhow::Result<Self> {
        Ok(Self(InterceptedService::new(channel(addr)?, Development)))
    }

    /// One call, never repeated here.
    pub(crate) async fn book(
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
    pub(crate) async fn cancel(
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

fn clinic(shard: u32, number: u32, day: &str) -> ClinicSpec {
    ClinicSpec {
        clinic: clinic_id(shard, number),
        display_name: format!("Clinic {number} of shard {shard}"),
        district: "Town".to_owned(),
        latitude: 33.4,
        longitude: 126.5,
        shard: Some(shard),
        stock: vec![StockSpec {
            vaccine: VACCINE.to_owned(),
            received: PLACES,
        }],
        slots: vec![SlotSpec {
            starts_at: format!("{day}T09:00:00+09:00"),
            day: day.to_owned(),
            vaccine: VACCINE.to_owned(),
            dose: 1,
            capacity: PLACES,
            closed: false,
        }],
    }
}

/// What the development provider would say of a person.
fn assertion(key: &SigningKey, number: usize) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let header = json!({ "alg": "EdDSA", "kid": "development", "typ": "JWT" });
    let claims = json!({
        "iss": "https://identity.doseline.invalid/development", "aud": "doseline",
        "sub": format!("town-{number}"), "birthdate": "1965-06-15", "iat": now, "exp": now + 600,
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}
