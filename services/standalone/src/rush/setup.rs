//! Before the doors: the campaign, the clinics, and waiting until gateways show them.

use std::time::Duration;

use anyhow::Context as _;
use jiff::{ToSpan as _, civil};
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{ApplyCampaignRequest, ApplyClinicsRequest, OpenRoomRequest};
use proto::availability::ListSlotsRequest;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use serde_json::json;

use super::plan::{self, Plan, VACCINE};
use super::{Rush, bar, group, say};
use crate::population;

/// The cohort's id.
pub(crate) const COHORT: &str = "fifties";
/// Clinics in one call.
const CLINICS_A_CALL: usize = 50;
/// How long gateways may take to show what was applied.
const SHOWN_WITHIN: Duration = Duration::from_secs(120);

/// Applies the campaign and the clinics of every region.
pub(crate) async fn apply(rush: &Rush) -> anyhow::Result<Plan> {
    let args = &rush.args;
    let today = plan::today();
    let (born_from, born_to) = population::birth_dates();
    let document = json!({
        "campaign": args.campaign,
        "time_zone": "Asia/Seoul",
        "regions": rush.population.regions(),
        "cohorts": [{
            "cohort": COHORT, "born_from": born_from, "born_to": born_to,
            "opens_at": "2021-07-19T20:00:00+09:00", "permits_from": civil::date(2021, 7, 1),
        }],
        "rules": {
            "vaccines": [VACCINE],
            "dose_interval": { "min_days": 21, "max_days": 42 },
            "hold_ttl_secs": 120,
        },
        "last_appointment": today.saturating_add(90.days()),
        "permit_ttl_secs": 7_200,
    });
    let mut campaigns = CampaignAdminServiceClient::new(args.tls.channel(&args.identity_admin)?);
    let request = ApplyCampaignRequest {
        document: document.to_string(),
        validate_only: false,
    };
    campaigns
        .apply_campaign(request)
        .await
        .context("the campaign was not applied")?;

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
    let channel = rush.args.tls.channel(&rush.args.identity_admin)?;
    let request = OpenRoomRequest {
        campaign: rush.args.campaign.clone(),
        cohort: COHORT.to_owned(),
        people_per_kilosecond: rush.args.rate * 1_000,
    };
    let open = CampaignAdminServiceClient::new(channel)
        .open_room(request)
        .await;
    Ok(open.context("the room was not opened")?.into_inner().people)
}
