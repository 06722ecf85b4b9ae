//! A cluster to attack: campaigns, permits and bookings through its public face, and its ledgers to look into.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use domain::Refusal;
use domain::permit::Permit;
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::{ApplyCampaignRequest, OpenRoomRequest, PauseRoomRequest};
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::{BookRequest, BookResponse};
use proto::identity::IssuePermitRequest;
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::room::GetPlaceRequest;
use proto::room::room_service_client::RoomServiceClient;
use proto::status::Refused;
use serde_json::json;
use system_tests::await_until::await_until;
use system_tests::cluster::{Cluster, Options, Part, database};
use system_tests::postgres::Session;
use system_tests::provider::Provider;
use system_tests::scrape::{metrics, total};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

/// The regions of every cluster here.
pub(crate) const REGIONS: [&str; 2] = ["seoul", "jeju"];
/// The calling system of those who do nothing wrong.
pub(crate) const CALLER: &str = "app-one";
/// The cohort of every campaign here, and its border days.
pub(crate) const COHORT: &str = "fifties";
pub(crate) const BORN_FROM: &str = "1961-08-01";
pub(crate) const BORN_TO: &str = "1971-07-31";
/// How long the parts may take to hear of a campaign, a clinic or a room.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// A cluster with open connections.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    gateways: Vec<Channel>,
    turn: AtomicUsize,
    /// Campaigns whose doors are open for everybody.
    open: Mutex<BTreeSet<String>>,
    // Last: processes write into it until they end.
    _folder: TempDir,
}

/// How many rows a ledger has of what a booking leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) claims: i64,
    pub(crate) requests: i64,
    pub(crate) bookings: i64,
}

impl Rows {
    pub(crate) const NONE: Self = Self {
        claims: 0,
        requests: 0,
        bookings: 0,
    };
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let options = |folder: &Path| Options {
            inventories: 2,
            identities: 1,
            ..Options::new(&REGIONS, folder)
        };
        Self::with(options).await
    }

    /// A cluster of other parts; its regions must be [`REGIONS`].
    pub(crate) async fn with(options: impl FnOnce(&Path) -> Options) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let cluster = Cluster::start(options(folder.path())).await?;
        let channels = cluster.gateways.iter().map(|part| channel(&part.addr));
        let gateways = channels.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            cluster,
            gateways,
            turn: AtomicUsize::new(0),
            open: Mutex::default(),
            _folder: folder,
        })
    }

    /// The gateways in turns.
    pub(crate) fn gateway(&self) -> Channel {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.gateways[turn % self.gateways.len()].clone()
    }

    pub(crate) fn gateways(&self) -> &[Channel] {
        &self.gateways
    }

    pub(crate) fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    fn campaigns(&self) -> anyhow::Result<CampaignAdminServiceClient<Channel>> {
        Ok(CampaignAdminServiceClient::new(channel(
            &self.cluster.identities[0].admin,
        )?))
    }

    /// Applies a campaign in both regions that gives one vaccine. Its room stays closed.
    pub(crate) async fn campaign(&self, name: &str, vaccine: &str) -> anyhow::Result<()> {
        self.campaign_in(name, vaccine, "Asia/Seoul").await
    }

    /// The same with another calendar.
    pub(crate) async fn campaign_in(
        &self,
        name: &str,
        vaccine: &str,
        time_zone: &str,
    ) -> anyhow::Result<()> {
        let document = json!({
            "campaign": name,
            "time_zone": time_zone,
            "regions": REGIONS,
            "cohorts": [{
                "cohort": COHORT, "born_from": BORN_FROM, "born_to": BORN_TO,
                "opens_at": "2021-07-19T20:00:00+09:00", "permits_from": "2021-07-01",
            }],
            "rules": {
                "vaccines": [vaccine],
                "dose_interval": { "min_days": 21, "max_days": 42 },
                "hold_ttl_secs": 120,
            },
            "last_appointment": crate::clinics::day(150)?,
            "permit_ttl_secs": 7_200,
        });
        let request = ApplyCampaignRequest {
            document: document.to_string(),
            validate_only: false,
        };
        self.campaigns()?.apply_campaign(request).await?;
        // Somebody of the wrong age leaves no trace, whatever is known of the campaign by now.
        await_until(&format!("identity knows {name}"), HEARD_WITHIN, || async {
            let asked = self
                .permit(name, "seoul", "nobody", "1900-01-01", CALLER)
                .await;
            asked.is_err_and(|status| refusal(&status) == Some(Refusal::NotEligible))
        })
        .await?;
        Ok(())
    }

    /// Opens the campaign's room for everybody at once.
    pub(crate) async fn open(&self, campaign: &str) -> anyhow::Result<()> {
        self.open_at(campaign, 0).await?;
        self.opened().insert(campaign.to_owned());
        Ok(())
    }

    fn opened(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.open
            .lock()
            .expect("no test panics while it holds this")
    }

    /// Opens the campaign's room for so many people per 1,000 seconds; 0 = everybody at once.
    pub(crate) async fn open_at(
        &self,
        campaign: &str,
        people_per_kilosecond: u64,
    ) -> anyhow::Result<()> {
        let (campaign, cohort) = (campaign.to_owned(), COHORT.to_owned());
        let request = OpenRoomRequest {
            campaign,
            cohort,
            people_per_kilosecond,
        };
        self.campaigns()?.open_room(request).await?;
        Ok(())
    }

    /// Pauses the campaign's room.
    pub(crate) async fn pause(&self, campaign: &str) -> anyhow::Result<()> {
        self.opened().remove(campaign);
        let (campaign, cohort) = (campaign.to_owned(), COHORT.to_owned());
        let request = PauseRoomRequest {
            campaign,
            cohort,
            reason: "a test".to_owned(),
        };
        self.campaigns()?.pause_room(request).await?;
        Ok(())
    }

    /// What the development provider says about somebody.
    pub(crate) fn assertion(&self, sub: &str, born: &str) -> anyhow::Result<String> {
        Ok(Provider::open(self.folder())?.assertion(sub, born))
    }

    /// Asks a gateway for a permit.
    pub(crate) async fn permit(
        &self,
        campaign: &str,
        region: &str,
        sub: &str,
        born: &str,
        caller: &str,
    ) -> Result<String, Status> {
        let assertion = self
            .assertion(sub, born)
            .map_err(|error| Status::internal(error.to_string()))?;
        let request = IssuePermitRequest {
            campaign: campaign.to_owned(),
            region: region.to_owned(),
            assertion,
        };
        let mut identity = IdentityServiceClient::new(self.gateway());
        let issued = identity.issue_permit(said_by(caller, request)).await?;
        Ok(issued.into_inner().permit)
    }

    /// A permit of somebody in the middle of the cohort; where the doors are open, once it is their turn: who comes
    /// late waits for a bucket to close.
    pub(crate) async fn permit_of(
        &self,
        campaign: &str,
        region: &str,
        sub: &str,
    ) -> anyhow::Result<String> {
        let permit = self
            .permit(campaign, region, sub, "1965-01-01", CALLER)
            .await;
        let permit = permit.with_context(|| format!("a permit of {sub}"))?;
        if self.opened().contains(campaign) {
            await_until(&format!("it is {sub}'s turn"), HEARD_WITHIN, || async {
                let request = GetPlaceRequest {
                    permit: permit.clone(),
                };
                let mut rooms = RoomServiceClient::new(self.gateway());
                let place = rooms.get_place(said_by(CALLER, request)).await;
                place.is_ok_and(|place| place.into_inner().admitted)
            })
            .await
            .with_context(|| self.cluster.identities[0].process.log_tail())?;
        }
        Ok(permit)
    }

    /// Books through a gateway.
    pub(crate) async fn book(
        &self,
        caller: &str,
        request: BookRequest,
    ) -> Result<BookResponse, Status> {
        let mut bookings = self.bookings();
        Ok(bookings.book(said_by(caller, request)).await?.into_inner())
    }

    pub(crate) fn bookings(&self) -> BookingServiceClient<Channel> {
        BookingServiceClient::new(self.gateway())
    }

    /// Waits until somebody new is admitted to the campaign and has booked the slot: everything works there.
    pub(crate) async fn await_bookable(
        &self,
        campaign: &str,
        region: &str,
        slot: &str,
    ) -> anyhow::Result<()> {
        let control = self
            .permit_of(campaign, region, &format!("control-{}", Uuid::new_v4()))
            .await?;
        let request = book(&control, &[slot]);
        await_until(&format!("{slot} can be booked"), HEARD_WITHIN, || async {
            self.book(CALLER, request.clone()).await.is_ok()
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn ledger(&self, region: &str) -> anyhow::Result<Session> {
        self.cluster.postgres.session(&database(region)).await
    }

    /// All rows of a region's ledger that bookings leave behind.
    pub(crate) async fn all_rows(&self, region: &str) -> anyhow::Result<Rows> {
        let of = "SELECT (SELECT count(*) FROM claim), (SELECT count(*) FROM request), (SELECT count(*) FROM booking)";
        let row = self.ledger(region).await?.query_one(of, &[]).await?;
        Ok(Rows {
            claims: row.get(0),
            requests: row.get(1),
            bookings: row.get(2),
        })
    }

    /// The rows of one person in all regions together.
    pub(crate) async fn rows_of(&self, permit: &Permit) -> anyhow::Result<Rows> {
        let of = "SELECT (SELECT count(*) FROM claim WHERE person = $1), \
                  (SELECT count(*) FROM request WHERE person = $1), \
                  (SELECT count(*) FROM booking WHERE person = $1)";
        let mut rows = Rows::NONE;
        for region in REGIONS {
            let person: &[u8] = permit.person.as_bytes();
            let row = self.ledger(region).await?.query_one(of, &[&person]).await?;
            rows.claims += row.get::<_, i64>(0);
            rows.requests += row.get::<_, i64>(1);
            rows.bookings += row.get::<_, i64>(2);
        }
        Ok(rows)
    }

    /// Whether any region recorded an answer under the request id.
    pub(crate) async fn recorded(&self, request_id: &str) -> anyhow::Result<bool> {
        let id: Uuid = request_id.parse()?;
        for region in REGIONS {
            let of = "SELECT count(*) FROM request WHERE request_id = $1";
            let row = self.ledger(region).await?.query_one(of, &[&id]).await?;
            if row.get::<_, i64>(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

// What processes count of attacks.
impl World {
    /// The sum of a counter over some processes.
    pub(crate) async fn counted(
        &self,
        parts: &[Part],
        counter: &str,
        label: &str,
    ) -> anyhow::Result<u64> {
        let mut sum = 0;
        for part in parts {
            sum += total(&metrics(&part.metrics).await?, counter, label);
        }
        Ok(sum)
    }

    /// What inventories refused before an owner saw it, for that reason.
    pub(crate) async fn turned_away(&self, why: Refusal) -> anyhow::Result<u64> {
        let label = format!("refusal=\"{}\"", why.code());
        let counter = "doseline_commands_turned_away_total";
        self.counted(&self.cluster.inventories, counter, &label)
            .await
    }

    /// What gateways refused themselves, for that reason.
    pub(crate) async fn turned_away_by_gateways(&self, why: Refusal) -> anyhow::Result<u64> {
        let label = format!("refusal=\"{}\"", why.code());
        let counter = "doseline_gateway_turned_away_total";
        self.counted(&self.cluster.gateways, counter, &label).await
    }

    /// Checks that inventories have counted so many refusals for that reason.
    pub(crate) async fn expect_turned_away(&self, why: Refusal, count: u64) -> anyhow::Result<()> {
        let found = self.turned_away(why).await?;
        let code = why.code();
        anyhow::ensure!(found == count, "{code} counted {found} times, not {count}");
        Ok(())
    }
}

/// A connection to one of our processes, made when it is first used.
pub(crate) fn channel(addr: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?.connect_lazy())
}

/// A request that says which system sends it.
pub(crate) fn said_by<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    if let Ok(caller) = caller.parse() {
        request.metadata_mut().insert("x-doseline-caller", caller);
    }
    request
}

/// Somebody's first booking, under a new request id.
pub(crate) fn book(permit: &str, slots: &[&str]) -> BookRequest {
    BookRequest {
        permit: permit.to_owned(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: 0,
        slots: slots.iter().map(|slot| (*slot).to_owned()).collect(),
    }
}

pub(crate) fn refusal(status: &Status) -> Option<Refusal> {
    proto::status::read(status).map(|refused| refused.refusal)
}

/// The refusal in an answer that must be one.
pub(crate) fn refused<T>(what: &str, answer: Result<T, Status>) -> anyhow::Result<Refused> {
    match answer {
        Ok(_) => anyhow::bail!("{what} was not refused"),
        Err(status) => proto::status::read(&status)
            .with_context(|| format!("{what} failed otherwise: {status:?}")),
    }
}

/// Checks that an answer is a refusal, and which.
pub(crate) fn expect_refused<T>(
    what: &str,
    answer: Result<T, Status>,
    why: Refusal,
) -> anyhow::Result<Refused> {
    let refused = refused(what, answer)?;
    anyhow::ensure!(
        refused.refusal == why,
        "{what}: {} instead of {}",
        refused.refusal.code(),
        why.code()
    );
    Ok(refused)
}
