//! Before the doors: the campaign, the clinics, and waiting until gateways show them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::{Timestamp, ToSpan as _, civil};
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{
    ApplyCampaignRequest, ApplyClinicsRequest, BeaconAnnouncement, CommitDrawRequest,
    EnterBeaconRequest, FreezeDrawRequest, OpenDoorsRequest, OpenRoomRequest, RevealDrawRequest,
    SetRoomRateRequest,
};
use proto::availability::ListSlotsRequest;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use serde_json::json;
use tonic::transport::Channel;

use super::plan::{self, Plan, VACCINE};
use super::{Rush, bar, group, say};
use crate::population;

/// The cohort's id.
pub(crate) const COHORT: &str = "fifties";
/// When the real one opened: an opening for everybody at once has no time of its own.
const OPENED_THEN: &str = "2021-07-19T20:00:00+09:00";
/// Polls a second that a rush asks for before the doors: what two cores answer beside everything else.
const POLLS_PER_SECOND: u64 = 5_000;
/// Seconds until the seed must be known; it is revealed at once.
const REVEALED_WITHIN: i64 = 60;
/// After everybody was told their place, until the doors.
const DRAWN_SPARE: Duration = Duration::from_secs(3);
/// Clinics in one call.
const CLINICS_A_CALL: usize = 50;
/// How long gateways may take to show what was applied.
const SHOWN_WITHIN: Duration = Duration::from_secs(120);

/// Applies the campaign and the clinics of every region.
pub(crate) async fn apply(rush: &Rush) -> anyhow::Result<Plan> {
    let args = &rush.args;
    let today = plan::today();
    apply_campaign(rush, timestamp(OPENED_THEN)?).await?;
    let plan = plan::clinics(&rush.population, args.supply, today)?;
    let clinics: usize = plan.values().map(Vec::len).sum();
    let bar = bar(clinics as u64, "clinics")?;
    let mut admin = ClinicAdminServiceClient::new(args.tls.channel(&args.inventory_admin)?);
    for (region, clinics) in &plan {
        for part in clinics.chunks(CLINICS_A_CALL) {
            let request = ApplyClinicsRequest {
                region: region.clone(),
                clinics: part.to_vec(),
                validate_only: false,
            };
            admin
                .apply_clinics(request)
                .await
                .with_context(|| format!("clinics of {region}"))?;
            bar.inc(part.len() as u64);
        }
    }
    bar.finish();
    let places: u64 = places(&plan).map(u64::from).sum();
    say(&format!(
        "{} clinics with {} places for a first dose",
        group(clinics as u64),
        group(places)
    ))?;
    Ok(plan)
}

async fn apply_campaign(rush: &Rush, opens_at: Timestamp) -> anyhow::Result<()> {
    let args = &rush.args;
    let (born_from, born_to) = population::birth_dates();
    let document = json!({
        "campaign": args.campaign,
        "time_zone": "Asia/Seoul",
        "regions": rush.population.regions(),
        "cohorts": [{
            "cohort": COHORT, "born_from": born_from, "born_to": born_to,
            "opens_at": opens_at, "permits_from": civil::date(2021, 7, 1),
        }],
        "rules": {
            "vaccines": [VACCINE],
            "dose_interval": { "min_days": 21, "max_days": 42 },
            "hold_ttl_secs": 120,
        },
        "room": { "polls_per_second": POLLS_PER_SECOND },
        "last_appointment": plan::today().saturating_add(90.days()),
        "permit_ttl_secs": 7_200,
    });
    let request = ApplyCampaignRequest {
        document: document.to_string(),
        validate_only: false,
    };
    campaigns(rush)?
        .apply_campaign(request)
        .await
        .context("the campaign was not applied")?;
    Ok(())
}

fn campaigns(rush: &Rush) -> anyhow::Result<CampaignAdminServiceClient<Channel>> {
    let channel = rush.args.tls.channel(&rush.args.identity_admin)?;
    Ok(CampaignAdminServiceClient::new(channel))
}

fn timestamp(text: &str) -> anyhow::Result<Timestamp> {
    text.parse().context("a timestamp")
}

/// First-dose capacities of all slots.
pub(crate) fn places(plan: &Plan) -> impl Iterator<Item = u32> {
    let slots = plan.values().flatten().flat_map(|clinic| &clinic.slots);
    slots
        .filter(|slot| slot.dose == 1)
        .map(|slot| slot.capacity)
}

/// Waits until every gateway shows slots of every region.
pub(crate) async fn wait_for_slots(rush: &Rush, plan: &Plan) -> anyhow::Result<()> {
    let begun = super::now();
    let bar = bar((plan.len() * rush.channels.len()) as u64, "gateways")?;
    for channel in &rush.channels {
        let mut availability = AvailabilityServiceClient::new(channel.clone());
        for region in plan.keys() {
            loop {
                let request = ListSlotsRequest {
                    region: region.clone(),
                    page_size: 1,
                    include_full: true,
                    ..ListSlotsRequest::default()
                };
                let page = availability.list_slots(request).await;
                if page.is_ok_and(|page| !page.into_inner().slots.is_empty()) {
                    break;
                }
                let waited = begun.elapsed();
                anyhow::ensure!(
                    waited < SHOWN_WITHIN,
                    "{region} is not shown by a gateway after {waited:?}"
                );
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            bar.inc(1);
        }
    }
    bar.finish();
    Ok(())
}

/// Opens the doors for everybody at once; returns how many wait.
pub(crate) async fn open_room(rush: &Rush) -> anyhow::Result<u64> {
    let request = OpenRoomRequest {
        campaign: rush.args.campaign.clone(),
        cohort: COHORT.to_owned(),
        people_per_kilosecond: 0,
    };
    let open = campaigns(rush)?.open_room(request).await;
    Ok(open.context("the room was not opened")?.into_inner().people)
}

/// Takes the steps of the draw up to the known order and announces when the doors open: in time for everybody to ask
/// for their place before. Returns that moment.
pub(crate) async fn draw(rush: &Rush) -> anyhow::Result<Instant> {
    let campaign = || rush.args.campaign.clone();
    let cohort = || COHORT.to_owned();
    let mut client = campaigns(rush)?;
    let rate = SetRoomRateRequest {
        campaign: campaign(),
        cohort: cohort(),
        people_per_kilosecond: Some(rush.args.rate * 1_000),
    };
    client
        .set_room_rate(rate)
        .await
        .context("the rate was not set")?;
    let now = runtime::Clock::system().wall();
    let now = Timestamp::from_microsecond(now.as_micros())?;
    let commit = CommitDrawRequest {
        campaign: campaign(),
        cohort: cohort(),
        beacon: Some(BeaconAnnouncement {
            source: "development: drawn by the rush itself, proves nothing".to_owned(),
            round: "1".to_owned(),
            publish_time: None,
        }),
        second: None,
        reveal_by: Some(prost_types::Timestamp {
            seconds: now.as_second() + REVEALED_WITHIN,
            nanos: 0,
        }),
    };
    client.commit_draw(commit).await.context("commit")?;
    let freeze = FreezeDrawRequest {
        campaign: campaign(),
        cohort: cohort(),
    };
    client.freeze_draw(freeze).await.context("freeze")?;
    let reveal = RevealDrawRequest {
        campaign: campaign(),
        cohort: cohort(),
    };
    client.reveal_draw(reveal).await.context("reveal")?;
    let ready = asks_over(rush) + DRAWN_SPARE;
    let began = super::now();
    apply_campaign(
        rush,
        now.saturating_add(jiff::SignedDuration::try_from(ready)?)?,
    )
    .await?;
    let beacon = EnterBeaconRequest {
        campaign: campaign(),
        cohort: cohort(),
        source: String::new(),
        round: String::new(),
        value: uuid::Uuid::new_v4().to_string(),
    };
    client.enter_beacon(beacon).await.context("beacon")?;
    Ok(began + ready)
}

/// Opens the doors of a drawn room at its time.
pub(crate) async fn open_doors(rush: &Rush, at: Instant) -> anyhow::Result<()> {
    tokio::time::sleep_until(at.into()).await;
    let request = OpenDoorsRequest {
        campaign: rush.args.campaign.clone(),
        cohort: COHORT.to_owned(),
    };
    campaigns(rush)?
        .open_doors(request)
        .await
        .context("the doors were not opened")?;
    say("doors open")
}

/// Everybody's first question about their place is spread over this time before the doors.
pub(crate) fn asks_over(rush: &Rush) -> Duration {
    Duration::from_secs(rush.population.people().div_ceil(POLLS_PER_SECOND))
}
