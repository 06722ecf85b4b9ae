//! A cluster with a campaign, and impatient people: they call Book again and again, whatever their turn.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use domain::permit::Permit;
use domain::{Refusal, Timestamp};
use jiff::ToSpan as _;
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{ApplyCampaignRequest, ApplyClinicsRequest, ClinicSpec, SlotSpec, StockSpec};
use proto::booking::BookRequest;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::identity::IssuePermitRequest;
use proto::identity::identity_service_client::IdentityServiceClient;
use serde_json::{Value, json};
use system_tests::await_until::{await_some, await_until};
use system_tests::cluster::{Cluster, Options, program};
use system_tests::provider::Provider;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

pub(crate) const REGIONS: [&str; 2] = ["seoul", "jeju"];
pub(crate) const CAMPAIGN: &str = "hall";
pub(crate) const COHORT: &str = "fifties";
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
const VACCINE: &str = "mrna-one";
const CALLER: &str = "app-one";

/// Everything that runs.
pub(crate) struct Hall {
    pub(crate) cluster: Cluster,
    pub(crate) gateways: Vec<Channel>,
    /// Identities that were not killed.
    pub(crate) identities: Vec<usize>,
    // Last: processes write into it until they end.
    _folder: tempfile::TempDir,
}

/// When the doorkeeper opens by itself.
pub(crate) struct Schedule {
    /// As in a campaign.
    pub(crate) opens_at: String,
    /// As in a campaign.
    pub(crate) draw: Value,
}

/// Somebody who wants to book.
pub(crate) struct Visitor {
    pub(crate) permit: Permit,
    text: String,
    region: &'static str,
}

/// What became of them.
pub(crate) struct Booked {
    pub(crate) visitor: Visitor,
    /// When the answer was there.
    pub(crate) at: Timestamp,
}

/// What all visitors of a hall see together.
#[derive(Default)]
pub(crate) struct Board {
    /// Bookings so far.
    pub(crate) booked: AtomicUsize,
    /// Refusals because the room was paused, since this was last set to 0.
    pub(crate) paused: AtomicUsize,
    /// Refusals because it was not their turn.
    pub(crate) not_admitted: AtomicUsize,
    /// Something else was answered.
    pub(crate) odd: std::sync::Mutex<Vec<String>>,
    pub(crate) over: AtomicBool,
}

pub(crate) fn now() -> Timestamp {
    runtime::Clock::system().wall()
}

/// The day so many days from today, in Korea.
fn day(days: i32) -> anyhow::Result<jiff::civil::Date> {
    let today = jiff::Timestamp::from_microsecond(now().as_micros())?;
    let date = jiff::tz::Offset::constant(9).to_datetime(today).date();
    Ok(date.checked_add(days.days())?)
}

fn channel(addr: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?.connect_lazy())
}

pub(crate) fn said<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    let caller = CALLER.parse().expect("ASCII");
    request.metadata_mut().insert("x-doseline-caller", caller);
    request
}

impl Hall {
    /// A cluster whose clinics have so many places in each region; plans are followed for `plan_ttl_secs`.
    pub(crate) async fn start(places: u32, plan_ttl_secs: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = Options {
            inventories: 2,
            plan_ttl_secs,
            ..Options::new(&REGIONS, folder.path())
        };
        let cluster = Cluster::start(options).await?;
        let channels = cluster.gateways.iter().map(|part| channel(&part.addr));
        let hall = Self {
            gateways: channels.collect::<anyhow::Result<_>>()?,
            identities: (0..cluster.identities.len()).collect(),
            cluster,
            _folder: folder,
        };
        hall.apply_campaign(None).await?;
        hall.apply_clinics(places).await?;
        Ok(hall)
    }

    /// Applies the campaign, again if need be: with a schedule the doorkeeper takes the steps and opens by itself.
    pub(crate) async fn apply_campaign(&self, schedule: Option<&Schedule>) -> anyhow::Result<()> {
        let mut document = json!({
            "campaign": CAMPAIGN, "time_zone": "Asia/Seoul", "regions": REGIONS,
            "cohorts": [{
                "cohort": COHORT, "born_from": "1961-01-01", "born_to": "1970-12-31",
                "opens_at": "2021-07-19T20:00:00+09:00", "permits_from": "2021-07-01",
            }],
            "rules": {
                "vaccines": [VACCINE],
                "dose_interval": { "min_days": 21, "max_days": 42 },
                "hold_ttl_secs": 120,
            },
            "last_appointment": day(100)?.to_string(), "permit_ttl_secs": 7_200,
            "room": { "bucket_seconds": 2 },
        });
        if let Some(Schedule { opens_at, draw }) = schedule {
            document["cohorts"][0]["opens_at"] = json!(opens_at);
            document["cohorts"][0]["draw"] = draw.clone();
        }
        let mut admin = CampaignAdminServiceClient::new(channel(&self.admin())?);
        let request = ApplyCampaignRequest {
            document: document.to_string(),
            validate_only: false,
        };
        admin.apply_campaign(request).await?;
        Ok(())
    }

    async fn apply_clinics(&self, places: u32) -> anyhow::Result<()> {
        let mut clinics =
            ClinicAdminServiceClient::new(channel(&self.cluster.inventories[0].admin)?);
        let slot = SlotSpec {
            starts_at: format!("{}T09:00:00+09:00", day(10)?),
            day: day(10)?.to_string(),
            vaccine: VACCINE.to_owned(),
            dose: 1,
            capacity: places,
            closed: false,
        };
        for region in REGIONS {
            let clinic = ClinicSpec {
                clinic: "one".to_owned(),
                display_name: "One".to_owned(),
                district: "one".to_owned(),
                latitude: 37.5,
                longitude: 127.0,
                shard: None,
                stock: vec![StockSpec {
                    vaccine: VACCINE.to_owned(),
                    received: places,
                }],
                slots: vec![slot.clone()],
            };
            let request = ApplyClinicsRequest {
                region: region.to_owned(),
                clinics: vec![clinic],
                validate_only: false,
            };
            clinics.apply_clinics(request).await?;
        }
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    /// The operators' port of an identity that lives.
    pub(crate) fn admin(&self) -> String {
        self.cluster.identities[self.identities[0]].admin.clone()
    }

    /// Runs the operator's command line: what it printed, or what it said was wrong.
    pub(crate) async fn doseline(&self, args: &[&str]) -> anyhow::Result<Result<String, String>> {
        let done = tokio::process::Command::new(program()?)
            .args(args)
            .env("DOSELINE_ADMIN", self.admin())
            .env("DOSELINE_GATEWAY", &self.cluster.gateways[0].addr)
            .output()
            .await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(if done.status.success() {
            Ok(text(done.stdout))
        } else {
            Err(text(done.stderr) + &text(done.stdout))
        })
    }

    /// `doseline room VERB hall fifties …`, which must work.
    pub(crate) async fn room(&self, verb: &str, more: &[&str]) -> anyhow::Result<Value> {
        let mut args = vec!["room", verb, CAMPAIGN, COHORT];
        args.extend(more);
        let done = self.doseline(&args).await?;
        let text = done.map_err(|problem| anyhow::anyhow!("room {verb}: {problem}"))?;
        serde_json::from_str(&text).with_context(|| format!("room {verb}: {text}"))
    }

    /// The same where it must be refused; says why.
    pub(crate) async fn refused(&self, verb: &str, more: &[&str]) -> anyhow::Result<String> {
        let mut args = vec!["room", verb, CAMPAIGN, COHORT];
        args.extend(more);
        match self.doseline(&args).await? {
            Ok(done) => anyhow::bail!("room {verb} was not refused: {done}"),
            Err(problem) => Ok(problem),
        }
    }

    pub(crate) async fn await_room(
        &self,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let found = std::sync::Mutex::new(Value::Null);
        await_until(what, WITHIN, || async {
            let Ok(shown) = self.room("show", &[]).await else {
                return false;
            };
            let held = holds(&shown["room"]);
            *found.lock().expect("not poisoned") = shown["room"].clone();
            held
        })
        .await
        .with_context(|| format!("{:?}", found.lock().expect("not poisoned")))?;
        Ok(found.into_inner().expect("not poisoned"))
    }

    /// Somebody gets a permit.
    pub(crate) async fn visitor(&self, number: usize) -> anyhow::Result<Visitor> {
        let region = REGIONS[number % REGIONS.len()];
        let sub = format!("visitor-{number}");
        let assertion = Provider::open(self.folder())?.assertion(&sub, "1965-05-05");
        let request = IssuePermitRequest {
            campaign: CAMPAIGN.to_owned(),
            region: region.to_owned(),
            assertion,
        };
        let gateway = self.gateways[number % self.gateways.len()].clone();
        let mut identity = IdentityServiceClient::new(gateway);
        let issued = identity.issue_permit(said(request)).await?;
        let text = issued.into_inner().permit;
        let keys = std::fs::read(self.folder().join("permit_keys.json"))?;
        let keys = runtime::trusted_keys::parse(&keys)?;
        Ok(Visitor {
            permit: Permit::verify(&keys, &text, now())?,
            text,
            region,
        })
    }

    /// The identity process that says it is the doorkeeper.
    pub(crate) async fn doorkeeper(&self) -> anyhow::Result<usize> {
        // Killed ones do not answer.
        await_some("there is a doorkeeper", WITHIN, || {
            self.cluster.doorkeeper()
        })
        .await
    }

    /// The folder where an audit bundle goes.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder().join("bundle")
    }
}

impl Visitor {
    fn wish(&self) -> BookRequest {
        BookRequest {
            permit: self.text.clone(),
            request_id: Uuid::new_v4().to_string(),
            claim_version: 0,
            slots: vec![format!("regions/{}/clinics/one/slots/1", self.region)],
        }
    }

    /// Calls Book once; gives the visitor back when it does not work.
    pub(crate) async fn try_once(self, gateway: Channel, board: &Board) -> Result<Booked, Self> {
        let mut bookings = BookingServiceClient::new(gateway);
        match bookings.book(said(self.wish())).await {
            Ok(_) => {
                board.booked.fetch_add(1, Ordering::SeqCst);
                Ok(Booked {
                    visitor: self,
                    at: now(),
                })
            }
            Err(status) => {
                board.note(&status);
                Err(self)
            }
        }
    }

    /// Calls Book until it works or everything is over, never waiting for their turn.
    pub(crate) async fn insist(self, gateway: Channel, board: Arc<Board>) -> Option<Booked> {
        let request = self.wish();
        let mut bookings = BookingServiceClient::new(gateway);
        // The pace of somebody who taps; nothing is measured by it.
        let mut taps = tokio::time::interval(Duration::from_millis(300));
        taps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !board.over.load(Ordering::SeqCst) {
            match bookings.book(said(request.clone())).await {
                Ok(_) => {
                    board.booked.fetch_add(1, Ordering::SeqCst);
                    return Some(Booked {
                        visitor: self,
                        at: now(),
                    });
                }
                Err(status) => board.note(&status),
            }
            taps.tick().await;
        }
        None
    }
}

impl Board {
    fn note(&self, status: &tonic::Status) {
        let refusal = proto::status::read(status).map(|refused| refused.refusal);
        if refusal == Some(Refusal::NotAdmitted) {
            self.not_admitted.fetch_add(1, Ordering::SeqCst);
        } else if refusal == Some(Refusal::RoomPaused) {
            self.paused.fetch_add(1, Ordering::SeqCst);
        } else {
            let told = format!("{refusal:?} {status:?}");
            self.odd.lock().expect("not poisoned").push(told);
        }
    }

    pub(crate) async fn await_booked(&self, people: usize) -> anyhow::Result<()> {
        let what = format!("{people} have booked");
        await_until(&what, WITHIN, || async {
            self.booked.load(Ordering::SeqCst) >= people
        })
        .await
        .with_context(|| {
            let odd = self.odd.lock().expect("not poisoned");
            format!(
                "{} booked; {:?}",
                self.booked.load(Ordering::SeqCst),
                odd.last()
            )
        })?;
        Ok(())
    }
}
