//! A clinic's terminal may do what is its own and possible; anything else is refused with its reason.

use domain::Refusal;
use jiff::civil::Date;
use jiff::{Span, tz};
use proto::clinic as pb;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::common::Date as PbDate;
use proto::inventory::{Command, answer, command};
use system_tests::await_until::await_until;
use tonic::Request;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::straight;
use crate::world::{CALLER, HEARD_WITHIN, World, book, expect_refused, said_by};

const CAMPAIGN: &str = "desk";
const VACCINE: &str = "mrna-one";
const CLINIC: &str = "regions/seoul/clinics/desk";
const SYSTEM: &str = "seoul--desk";
const NEIGHBOUR: &str = "seoul--next-door";

/// A calendar by which it is now early in the morning, so that today's slots are all to come.
pub(crate) struct Morning {
    zone: String,
    today: Date,
}

impl Morning {
    /// Two o'clock it is there now, and some minutes.
    const HOUR: i32 = 2;

    pub(crate) fn now() -> anyhow::Result<Self> {
        let now = jiff::Timestamp::from_microsecond(crate::signing::now().as_micros())?;
        let hour = i32::from(tz::Offset::UTC.to_datetime(now).hour());
        let mut ahead = Self::HOUR - hour;
        if ahead < -12 {
            ahead += 24;
        }
        let offset = tz::Offset::constant(i8::try_from(ahead)?);
        Ok(Self {
            // Named the other way round: Etc/GMT-9 is nine hours ahead.
            zone: format!("Etc/GMT{:+}", -ahead),
            today: offset.to_datetime(now).date(),
        })
    }

    /// Its name.
    pub(crate) fn time_zone(&self) -> &str {
        &self.zone
    }

    fn day(&self, from_now: i64) -> anyhow::Result<PbDate> {
        let day = self.today.checked_add(Span::new().try_days(from_now)?)?;
        Ok(PbDate {
            year: day.year().into(),
            month: day.month().into(),
            day: day.day().into(),
        })
    }
}

pub(crate) fn by<T>(system: &str, role: &'static str, message: T) -> Request<T> {
    let mut request = said_by(system, message);
    let role = tonic::metadata::MetadataValue::from_static(role);
    request.metadata_mut().insert("x-doseline-role", role);
    request
}

fn mine<T>(message: T) -> Request<T> {
    by(SYSTEM, "clinic", message)
}

fn id() -> String {
    Uuid::new_v4().to_string()
}

fn deliver(doses: u32) -> pb::DeliverStockRequest {
    pb::DeliverStockRequest {
        clinic: CLINIC.to_owned(),
        request_id: id(),
        vaccine: VACCINE.to_owned(),
        doses,
    }
}

/// One slot of a day at ten in the evening.
fn open(day: PbDate, capacity: u32) -> pb::OpenSlotsRequest {
    pb::OpenSlotsRequest {
        clinic: CLINIC.to_owned(),
        request_id: id(),
        campaign: CAMPAIGN.to_owned(),
        vaccine: VACCINE.to_owned(),
        dose: 1,
        days: vec![day],
        from_minute: 22 * 60,
        to_minute: 22 * 60 + 1,
        step_minutes: 1,
        capacity,
        validate_only: false,
    }
}

fn resize(slot: &str, capacity: u32) -> pb::ResizeSlotRequest {
    pb::ResizeSlotRequest {
        slot: slot.to_owned(),
        request_id: id(),
        capacity,
    }
}

fn check_in(code: &str) -> pb::CheckInRequest {
    pb::CheckInRequest {
        clinic: CLINIC.to_owned(),
        request_id: id(),
        code: code.to_owned(),
    }
}

fn given(code: &str, dose: u32, vaccine: &str) -> pb::RecordDoseGivenRequest {
    pb::RecordDoseGivenRequest {
        clinic: CLINIC.to_owned(),
        request_id: id(),
        code: code.to_owned(),
        dose,
        vaccine: vaccine.to_owned(),
        lot: "EK-1".to_owned(),
    }
}

impl World {
    fn terminal(&self) -> ClinicServiceClient<Channel> {
        ClinicServiceClient::new(self.gateway())
    }

    /// All that a terminal can change, as text.
    async fn desk(&self) -> anyhow::Result<String> {
        let all = "SELECT concat_ws('|', (SELECT json_agg(t ORDER BY clinic, vaccine) FROM stock t),
            (SELECT json_agg(s ORDER BY slot_id) FROM slot s), (SELECT json_agg(v ORDER BY slot_id, booking) FROM visit v),
            (SELECT count(*) FROM clinic_request), (SELECT count(*) FROM event))";
        let row = self.ledger("seoul").await?.query_one(all, &[]).await?;
        Ok(row.get(0))
    }

    /// Opens one slot and books it; the slot's name and the booking's code.
    async fn booked_on(&self, day: PbDate, person: &str) -> anyhow::Result<(String, String)> {
        let opened = self.terminal().open_slots(mine(open(day, 3))).await?;
        let slot = opened.into_inner().slots.remove(0).name;
        let permit = self.permit_of(CAMPAIGN, "seoul", person).await?;
        let request = book(&permit, &[&slot]);
        let ours = &slot;
        await_until(&format!("{ours} can be booked"), HEARD_WITHIN, || async {
            self.book(CALLER, request.clone()).await.is_ok()
        })
        .await?;
        // The same request again: the same booking.
        let booking = self.book(CALLER, request).await?.booking;
        Ok((slot, booking.unwrap_or_default().code))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of attacks")]
async fn what_a_terminal_may_not_do_is_refused_with_its_reason_and_changes_nothing()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let morning = Morning::now()?;
    world.campaign_in(CAMPAIGN, VACCINE, &morning.zone).await?;
    world
        .clinic("seoul", "desk", VACCINE, &[(1, 60, 1)])
        .await?;
    world
        .clinic("seoul", "next-door", VACCINE, &[(1, 60, 1)])
        .await?;
    world.open(CAMPAIGN).await?;
    let terminal = || world.terminal();
    let delivered = terminal()
        .deliver_stock(mine(deliver(6)))
        .await?
        .into_inner();
    assert_eq!(delivered.stock.map(|stock| stock.received), Some(7));
    let (slot, code) = world.booked_on(morning.day(0)?, "today").await?;
    let (_, tomorrows) = world.booked_on(morning.day(1)?, "tomorrow").await?;
    let nobody = domain::booking_code::of(domain::BookingId(Uuid::new_v4()));

    let before = world.desk().await?;
    let beyond = terminal().open_slots(mine(open(morning.day(2)?, 2))).await;
    expect_refused("beyond stock", beyond, Refusal::StockExceeded)?;
    let past = terminal().open_slots(mine(open(morning.day(-1)?, 1))).await;
    expect_refused("yesterday", past, Refusal::InThePast)?;
    let there = terminal().open_slots(mine(open(morning.day(0)?, 1))).await;
    expect_refused("a slot that is there", there, Refusal::SlotExists)?;
    let below = terminal().resize_slot(mine(resize(&slot, 0))).await;
    expect_refused("no capacity", below, Refusal::Invalid)?;
    let unknown = terminal()
        .resize_slot(mine(resize(&format!("{CLINIC}/slots/999999"), 1)))
        .await;
    expect_refused("an unknown slot", unknown, Refusal::SlotUnknown)?;
    let mut ended = open(morning.day(1)?, 1);
    ended.days = vec![morning.day(400)?];
    let ended = terminal().open_slots(mine(ended)).await;
    expect_refused("after the campaign", ended, Refusal::Invalid)?;
    let mut foreign = open(morning.day(2)?, 1);
    foreign.vaccine = "vector".to_owned();
    let foreign = terminal().open_slots(mine(foreign)).await;
    expect_refused(
        "another vaccine than the campaign's",
        foreign,
        Refusal::Invalid,
    )?;

    for (system, role, why) in [
        (NEIGHBOUR, "clinic", Refusal::ClinicForeign),
        ("jeju--desk", "clinic", Refusal::ClinicForeign),
        ("desk", "clinic", Refusal::ClinicForeign),
        (SYSTEM, "mobile", Refusal::CallerForbidden),
        (SYSTEM, "operator", Refusal::CallerForbidden),
        (SYSTEM, "auditor", Refusal::CallerForbidden),
    ] {
        let what = format!("{system} as {role}");
        let got = terminal().deliver_stock(by(system, role, deliver(9))).await;
        expect_refused(&what, got, why)?;
        let got = terminal()
            .resize_slot(by(system, role, resize(&slot, 1)))
            .await;
        expect_refused(&what, got, why)?;
        let got = terminal().check_in(by(system, role, check_in(&code))).await;
        expect_refused(&what, got, why)?;
        let sheet = pb::ListAppointmentsRequest {
            clinic: CLINIC.to_owned(),
            day: Some(morning.day(0)?),
            ..pb::ListAppointmentsRequest::default()
        };
        let got = terminal().list_appointments(by(system, role, sheet)).await;
        expect_refused(&what, got, why)?;
    }

    for wrong in ["", "1", &code[..13], &format!("{code}0"), "ILOU-ILOU-ILOU"] {
        let refused = terminal().check_in(mine(check_in(wrong))).await;
        let refused = expect_refused(wrong, refused, Refusal::Invalid)?;
        assert_eq!(refused.violations[0].0, "code");
    }
    for (what, code, why) in [
        ("nobody's code", &nobody, Refusal::CodeUnknown),
        ("tomorrow's code", &tomorrows, Refusal::AppointmentOtherDay),
    ] {
        let refused = terminal().check_in(mine(check_in(code))).await;
        expect_refused(what, refused, why)?;
    }
    let mut elsewhere = check_in(&code);
    elsewhere.clinic = "regions/seoul/clinics/next-door".to_owned();
    let refused = terminal()
        .check_in(by(NEIGHBOUR, "clinic", elsewhere))
        .await;
    expect_refused("next door", refused, Refusal::AppointmentElsewhere)?;
    let unseen = terminal()
        .record_dose_given(mine(given(&code, 1, VACCINE)))
        .await;
    expect_refused("not checked in", unseen, Refusal::NotCheckedIn)?;
    assert_eq!(world.desk().await?, before, "changed although refused");

    // What is right goes through, once.
    let request = check_in(&code.to_lowercase());
    terminal().check_in(mine(request.clone())).await?;
    let again = terminal()
        .check_in(mine(request.clone()))
        .await?
        .into_inner();
    assert!(again.repeated_answer);
    let before = world.desk().await?;
    let mut reused = check_in(&tomorrows);
    reused.request_id = request.request_id;
    let reused = terminal().check_in(mine(reused)).await;
    expect_refused("another body", reused, Refusal::RequestIdReused)?;
    let wrong = terminal()
        .record_dose_given(mine(given(&code, 2, VACCINE)))
        .await;
    expect_refused("the wrong dose", wrong, Refusal::DoseMismatch)?;
    let wrong = terminal()
        .record_dose_given(mine(given(&code, 1, "vector")))
        .await;
    expect_refused("the wrong vaccine", wrong, Refusal::VaccineMismatch)?;
    let mut lot = given(&code, 1, VACCINE);
    lot.lot = "'; DROP TABLE visit".to_owned();
    let lot = terminal().record_dose_given(mine(lot)).await;
    expect_refused("a lot that is none", lot, Refusal::Invalid)?;
    assert_eq!(world.desk().await?, before, "changed although refused");
    terminal()
        .record_dose_given(mine(given(&code, 1, VACCINE)))
        .await?;
    let twice = terminal()
        .record_dose_given(mine(given(&code, 1, VACCINE)))
        .await;
    expect_refused("twice", twice, Refusal::AppointmentOver)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_below_booked_and_no_gateway_speaks_for_another_clinic()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let morning = Morning::now()?;
    world.campaign_in(CAMPAIGN, VACCINE, &morning.zone).await?;
    world
        .clinic("seoul", "desk", VACCINE, &[(1, 60, 1)])
        .await?;
    world.open(CAMPAIGN).await?;
    // Sixteen terminals send one delivery at the same time: it comes once.
    let delivery = deliver(3);
    let all = (0..16).map(|_| {
        let (mut terminal, delivery) = (world.terminal(), delivery.clone());
        async move { terminal.deliver_stock(mine(delivery)).await }
    });
    let mut first = 0;
    for answer in futures::future::join_all(all).await {
        let answer = answer?.into_inner();
        assert_eq!(answer.stock.map(|stock| stock.received), Some(4));
        first += u32::from(!answer.repeated_answer);
    }
    assert_eq!(first, 1);
    let (slot, one) = world.booked_on(morning.day(0)?, "one").await?;
    let permit = world.permit_of(CAMPAIGN, "seoul", "two").await?;
    let two = world.book(CALLER, book(&permit, &[&slot])).await?.booking;
    let mut codes = [one, two.unwrap_or_default().code];
    codes.sort();
    let before = world.desk().await?;
    let below = world.terminal().resize_slot(mine(resize(&slot, 1))).await;
    let below = expect_refused("below booked", below, Refusal::BelowBooked)?;
    let told: Vec<_> = below
        .violations
        .iter()
        .map(|(f, p)| (f.as_str(), p.as_str()))
        .collect();
    let listed = codes.join(", ");
    assert_eq!(
        told,
        [
            ("capacity", "2 people are booked"),
            ("booking_codes", listed.as_str())
        ]
    );
    // A gateway that has the key and is wrong about who calls is not believed, either.
    let internal = std::fs::read_to_string(world.folder().join("internal.key"))?;
    let command = Command {
        call_id: 7,
        caller: NEIGHBOUR.to_owned(),
        region: "seoul".to_owned(),
        shard: 0,
        timeout_ms: 5_000,
        traceparent: String::new(),
        oversees: true,
        action: Some(command::Action::DeliverStock(deliver(1_000))),
    };
    let addr = &world.cluster.inventories[0].addr;
    let shown = |message| straight::shown(Some(&internal), message);
    let mut answers = straight::ask(addr, shown, vec![command]).await?;
    let answer = answers.pop().expect("one answer to one command");
    match answer.outcome {
        Some(answer::Outcome::Refused(refused)) => assert_eq!(refused.reason, "CLINIC_FOREIGN"),
        other => anyhow::bail!("believed: {other:?}"),
    }
    assert_eq!(world.desk().await?, before, "changed although refused");
    Ok(())
}
