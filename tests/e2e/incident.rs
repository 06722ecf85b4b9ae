//! A clinic with 336 bookings fails under load: its people are moved by a plan, and the ledger's history says that each
//! of them had exactly one appointment at every moment.

mod desk;
mod history;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use domain::Refusal;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{ApplyClinicsRequest, ClinicSpec, SlotSpec, StockSpec};
use proto::booking::MoveBookingRequest;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::clinic as pb;
use proto::clinic::incident::State;
use proto::clinic::incident_line::State as LineState;
use system_tests::await_until::await_some;
use system_tests::postgres::Session;
use system_tests::town::{Caller, Options, REGION, Town};
use tokio::task::JoinSet;
use tonic::Status;
use uuid::Uuid;

use self::desk::{Desk, id};
use self::history::{history, no_slot_is_wrong, wrong_now};

const VACCINE: &str = "demo-mrna";
const CLINIC: &str = "regions/jeju/clinics/broken";
const CUT: &str = "regions/jeju/clinics/cut";
/// As many people as the clinic has.
const PEOPLE: usize = 336;
/// Of them, those who move or cancel themselves while the plan is being applied.
const OWN_WAY: usize = 12;
/// Others who book, move and cancel all the while.
const OTHERS: usize = 12;
/// Places of each of eight neighbours: too few for everybody.
const PLACES: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(10);
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

struct Booked {
    permit: String,
    name: String,
}

fn closure(clinic: &str, kind: pb::incident::Kind) -> pb::OpenIncidentRequest {
    pb::OpenIncidentRequest {
        clinic: clinic.to_owned(),
        request_id: id(),
        kind: kind.into(),
        vaccine: VACCINE.to_owned(),
        from_day: None,
        to_day: None,
    }
}

#[track_caller]
fn refused<T>(what: &str, answer: Result<T, Status>, why: Refusal) {
    let status = answer.err().unwrap_or_else(|| panic!("{what} was allowed"));
    let told = proto::status::read(&status).map(|refused| refused.refusal);
    assert_eq!(told, Some(why), "{what}: {status:?}");
}

async fn day(session: &Session, days: i32) -> anyhow::Result<String> {
    let sql = "SELECT to_char(now() + make_interval(days => $1), 'YYYY-MM-DD')";
    Ok(session.query_one(sql, &[&days]).await?.get(0))
}

/// Adds a clinic with these slots: day, hour, places.
async fn clinic(town: &Town, name: &str, slots: &[(&str, u32, u32)]) -> anyhow::Result<()> {
    let slot = |(day, hour, capacity): &(&str, u32, u32)| SlotSpec {
        starts_at: format!("{day}T{hour:02}:00:00+09:00"),
        day: (*day).to_owned(),
        vaccine: VACCINE.to_owned(),
        dose: 1,
        capacity: *capacity,
        closed: false,
    };
    let spec = ClinicSpec {
        clinic: name.rsplit('/').next().unwrap_or_default().to_owned(),
        display_name: name.to_owned(),
        district: "Town".to_owned(),
        latitude: 33.41,
        longitude: 126.51,
        shard: Some(0),
        stock: vec![StockSpec {
            vaccine: VACCINE.to_owned(),
            received: 1_000,
        }],
        slots: slots.iter().map(slot).collect(),
    };
    let request = ApplyClinicsRequest {
        region: REGION.to_owned(),
        clinics: vec![spec],
        validate_only: false,
    };
    let settings = runtime::transport::ClientSettings::default();
    let admin = &town.cluster.inventories[0].admin;
    let channel = runtime::transport::connect(admin, None, &settings)?;
    ClinicAdminServiceClient::new(channel)
        .apply_clinics(request)
        .await?;
    Ok(())
}

/// The names of a clinic's slots, by start.
async fn slots_of(session: &Session, clinic: &str) -> anyhow::Result<Vec<String>> {
    let id = clinic.rsplit('/').next().unwrap_or_default();
    let sql = "SELECT slot_id FROM slot WHERE clinic = $1 ORDER BY starts_at";
    let rows = session.query(sql, &[&id]).await?;
    let name = |row: &tokio_postgres::Row| format!("{clinic}/slots/{}", row.get::<_, i64>(0));
    Ok(rows.iter().map(name).collect())
}

/// Books one place for each permit, spread over the slots.
async fn books(
    caller: &Caller,
    permits: Vec<String>,
    slots: &[String],
) -> anyhow::Result<Vec<Booked>> {
    // One before the others: a second try of it beside them would hold a place for a moment.
    let (first, request) = (permits[0].clone(), Uuid::new_v4());
    let booked = await_some("the clinic is listed", SETTLED_WITHIN, || async {
        let booked = caller.book(&first, request, 0, &slots[0], PATIENCE).await;
        booked.ok()?.booking
    })
    .await?;
    let mut all = vec![Booked {
        permit: first.clone(),
        name: booked.name,
    }];
    let others = permits.into_iter().enumerate().skip(1).map(|(at, permit)| {
        let slot = &slots[at % slots.len()];
        async move {
            let answer = caller
                .book(&permit, Uuid::new_v4(), 0, slot, PATIENCE)
                .await?;
            let booking = answer.booking.context("a booking")?;
            anyhow::Ok(Booked {
                permit,
                name: booking.name,
            })
        }
    });
    let others = futures::stream::iter(others).buffered(16);
    all.extend(others.try_collect::<Vec<_>>().await?);
    Ok(all)
}

async fn moves(caller: &Caller, who: &Booked, version: u64, slot: &str) -> Result<u64, Status> {
    let request = MoveBookingRequest {
        permit: who.permit.clone(),
        request_id: id(),
        claim_version: version,
        booking: who.name.clone(),
        dose: 1,
        slot: slot.to_owned(),
    };
    let mut client = BookingServiceClient::new(caller.service());
    let moved = client.move_booking(request).await?;
    Ok(moved.into_inner().claim_version)
}

/// Somebody who books, moves and cancels until told to stop; what is refused is tried elsewhere.
async fn bustles(
    caller: Caller,
    permit: String,
    slots: Arc<Vec<String>>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let (mut version, mut done, mut at) = (0, 0, permit.len());
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let slot = &slots[at % slots.len()];
        let booked = caller
            .book(&permit, Uuid::new_v4(), version, slot, PATIENCE)
            .await;
        let answer = match booked {
            Ok(answer) => answer,
            Err(status) => {
                let told = proto::status::read(&status).and_then(|refused| refused.claim_version);
                version = told.map_or(version, |told| told.0);
                continue;
            }
        };
        version = answer.claim_version;
        let who = Booked {
            permit: permit.clone(),
            name: answer.booking.unwrap_or_default().name,
        };
        let next = &slots[(at * 3 + 1) % slots.len()];
        if let Ok(moved) = moves(&caller, &who, version, next).await {
            version = moved;
        }
        match caller.cancel(&permit, version, &who.name, PATIENCE).await {
            Ok(after) => version = after,
            Err(_) => return done,
        }
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one day at one clinic, from morning to night"
)]
async fn people_of_a_broken_clinic_are_moved_and_have_one_appointment_at_every_moment()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options {
        places: PLACES,
        ..Options::with_people(PEOPLE + OTHERS + 8 + 6)
    };
    let mut town = Town::start(folder.path(), options).await?;
    let session = town.ledger().await?;
    let dose_day = day(&session, 9).await?;
    let hours: Vec<_> = (9..13).map(|hour| (dose_day.as_str(), hour, 84)).collect();
    clinic(&town, CLINIC, &hours).await?;
    let caller = town.callers[0].clone();
    let permits: Vec<String> = town.permits.drain(..PEOPLE).collect();
    let people = books(&caller, permits, &slots_of(&session, CLINIC).await?).await?;

    // Others go on with their day.
    let neighbours: Arc<Vec<String>> = Arc::new(town.slots.iter().flatten().cloned().collect());
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = JoinSet::new();
    for at in 0..OTHERS {
        let caller = town.callers[at % town.callers.len()].clone();
        let (slots, stop) = (Arc::clone(&neighbours), Arc::clone(&stop));
        others.spawn(bustles(caller, town.permit()?, slots, stop));
    }

    let operator = Desk::at(&town, "ministry", "operator")?;
    let request = closure(CLINIC, pb::incident::Kind::FridgeFailure);
    for (system, role, why) in [
        ("jeju--cut", "clinic", Refusal::ClinicForeign),
        ("jeju--broken", "mobile", Refusal::CallerForbidden),
        ("jeju--broken", "auditor", Refusal::CallerForbidden),
    ] {
        let stranger = Desk::at(&town, system, role)?;
        refused(role, stranger.open(request.clone()).await, why);
    }
    let mut elsewhere = request.clone();
    elsewhere.clinic = "regions/seoul/clinics/broken".to_owned();
    refused(
        "another region",
        operator.open(elsewhere).await,
        Refusal::Invalid,
    );
    let mut unsaid = request.clone();
    unsaid.kind = 0;
    refused("no kind", operator.open(unsaid).await, Refusal::Invalid);

    let opened = operator.open(request.clone()).await?;
    assert_eq!(
        operator.open(request).await?,
        opened,
        "the same request again"
    );
    let name = opened.name.as_str();
    assert_eq!(
        (opened.affected as usize, opened.state()),
        (PEOPLE, State::Open)
    );
    let listed = operator.lines(name, 0).await?;
    let codes: BTreeSet<&str> = listed.iter().map(|line| line.code.as_str()).collect();
    assert_eq!(codes.len(), PEOPLE);
    refused(
        "no plan yet",
        operator.apply(name, 1).await,
        Refusal::PlanStale,
    );
    let stranger = Desk::at(&town, "jeju--cut", "clinic")?;
    refused(
        "a stranger's plan",
        stranger.preview(name).await,
        Refusal::ClinicForeign,
    );
    let unknown = format!("{CLINIC}/incidents/{}", Uuid::new_v4());
    refused(
        "an unknown one",
        operator.get(&unknown).await,
        Refusal::IncidentUnknown,
    );

    let planned = operator.preview(name).await?;
    assert_eq!(planned.affected as usize, PEOPLE);
    assert!(
        planned.planned > 200 && planned.unmovable > 0,
        "{planned:?}"
    );
    let nowhere = operator.lines(name, 1).await?;
    let nowhere: Vec<_> = nowhere
        .iter()
        .filter(|line| line.state() == LineState::Unmovable)
        .collect();
    assert_eq!(nowhere.len(), planned.unmovable as usize);
    assert!(
        nowhere
            .iter()
            .all(|line| line.reason == "NO_PLACE_IN_REACH" && line.to_slot.is_empty())
    );
    assert_eq!(wrong_now(&session).await?, (0, 0), "a preview moves nobody");
    let planned = operator.preview(name).await?;
    refused(
        "a plan that is not the last",
        operator.apply(name, 1).await,
        Refusal::PlanStale,
    );

    // From here on somebody looks at everybody all the time.
    let watching = Arc::new(AtomicBool::new(true));
    let looks = {
        let (watching, session) = (Arc::clone(&watching), town.ledger().await?);
        tokio::spawn(async move {
            let mut looks = 0;
            while watching.load(Ordering::Relaxed) {
                let (without, wrong) = wrong_now(&session).await?;
                anyhow::ensure!(
                    wrong == 0,
                    "{wrong} people have not exactly one appointment"
                );
                anyhow::ensure!(
                    without <= i64::try_from(OWN_WAY / 2)?,
                    "{without} people have none"
                );
                looks += 1;
            }
            anyhow::Ok(looks)
        })
    };
    operator.apply(name, planned.plan).await?;
    let twice = operator.apply(name, planned.plan).await;
    let told = twice.err().and_then(|status| proto::status::read(&status));
    let told = told.map(|refused| refused.refusal);
    assert!(
        matches!(told, Some(Refusal::PlanInProgress | Refusal::PlanApplied)),
        "{told:?}"
    );
    // Some go their own way meanwhile: they win or are told that they are late.
    let own = people.iter().take(OWN_WAY).enumerate().map(|(at, who)| {
        let (caller, slots) = (&caller, &neighbours);
        async move {
            let slot = &slots[at % slots.len()];
            if at % 2 == 0 {
                moves(caller, who, 1, slot).await.map(drop)
            } else {
                caller
                    .cancel(&who.permit, 1, &who.name, PATIENCE)
                    .await
                    .map(drop)
            }
        }
    });
    let own = futures::future::join_all(own);
    let killed = async {
        let now = await_some("some are moved", SETTLED_WITHIN, || async {
            let now = operator.get(name).await.ok()?;
            (now.moved > 0).then_some(now)
        });
        let now = now.await?;
        anyhow::ensure!(now.planned > 0, "all were moved before anybody looked");
        let owner = town.owner(1).await?;
        anyhow::Ok(town.inventory(&owner)?)
    };
    let (own, at) = tokio::join!(own, killed);
    let at = at?;
    town.cluster.inventories[at].process.kill()?;
    for status in own.into_iter().filter_map(Result::err) {
        let told = proto::status::read(&status).map(|refused| refused.refusal);
        let late = [
            Refusal::ClaimVersionStale,
            Refusal::SlotFull,
            Refusal::OutcomeUnknown,
        ];
        assert!(told.is_some_and(|told| late.contains(&told)), "{status:?}");
    }
    let first = operator.applied(name).await?;
    assert_eq!(first.moved + first.failed + first.unmovable, first.affected);
    assert!(first.moved > 0, "{first:?}");
    refused(
        "applied twice",
        operator.apply(name, first.plan).await,
        Refusal::PlanApplied,
    );
    stop.store(true, Ordering::Relaxed);
    let bustled: u64 = others.join_all().await.into_iter().sum();
    assert!(bustled > 0, "others could book meanwhile");

    // Who was late, or could not be moved because others were faster, is planned again until there is nothing to plan.
    let mut last = operator.preview(name).await?;
    while last.planned > 0 {
        operator.apply(name, last.plan).await?;
        operator.applied(name).await?;
        last = operator.preview(name).await?;
    }
    watching.store(false, Ordering::Relaxed);
    assert!(looks.await?? > 10, "somebody looked");
    let (gone, moved) = history(&session).await?;
    assert!(gone.len() <= OWN_WAY / 2 && moved >= first.moved as usize);
    no_slot_is_wrong(&session).await?;
    let (without, wrong) = wrong_now(&session).await?;
    assert_eq!((usize::try_from(without)?, wrong), (gone.len(), 0));
    assert!(
        last.unmovable > 0 && last.unmovable == last.affected,
        "{last:?}"
    );
    let stay: i64 = session
        .query_one(
            "SELECT count(*) FROM booking b JOIN slot s ON s.slot_id = b.slot_id
             WHERE s.clinic = 'broken' AND b.state = 'BOOKED'",
            &[],
        )
        .await?
        .get(0);
    assert_eq!(
        stay,
        i64::from(last.unmovable),
        "who is still there is listed"
    );
    let listed = operator.lines(name, last.plan).await?;
    assert!(listed.iter().all(|line| line.reason == "NO_PLACE_IN_REACH"));
    town.cluster.inventories[at].process.restart()?;
    town.cluster.await_ready(SETTLED_WITHIN).await?;
    supply_cut(&mut town, &session, &operator).await
}

/// Doses do not come: people get later days at their clinic, in their order; whoever is beyond it is listed.
async fn supply_cut(town: &mut Town, session: &Session, operator: &Desk) -> anyhow::Result<()> {
    let (soon, later) = (day(session, 10).await?, day(session, 17).await?);
    let slots = [
        (soon.as_str(), 9, 3),
        (soon.as_str(), 10, 3),
        (later.as_str(), 9, 2),
        (later.as_str(), 11, 2),
    ];
    clinic(town, CUT, &slots).await?;
    let names = slots_of(session, CUT).await?;
    let permits = (0..6)
        .map(|_| town.permit())
        .collect::<anyhow::Result<Vec<_>>>()?;
    books(&town.callers[0].clone(), permits, &names[..2]).await?;
    let mine = Desk::at(town, "jeju--cut", "clinic")?;
    let mut request = closure(CUT, pb::incident::Kind::SupplyCut);
    request.vaccine.clear();
    refused(
        "no vaccine",
        mine.open(request.clone()).await,
        Refusal::Invalid,
    );
    request.vaccine = VACCINE.to_owned();
    let until = jiff_date(&soon)?;
    request.to_day = Some(until);
    let opened = mine.open(request).await?;
    assert_eq!(opened.affected, 6);
    let planned = operator.preview(&opened.name).await?;
    assert_eq!((planned.planned, planned.unmovable), (4, 2));
    operator.apply(&opened.name, planned.plan).await?;
    let applied = mine.applied(&opened.name).await?;
    assert_eq!((applied.moved, applied.unmovable), (4, 2));
    let lines = mine.lines(&opened.name, applied.plan).await?;
    let moved = lines.iter().filter(|line| line.state() == LineState::Moved);
    let starts: Vec<_> = moved
        .map(|line| {
            [&line.start_time, &line.to_start_time].map(|at| at.as_ref().map(|at| at.seconds))
        })
        .collect();
    assert!(
        starts.is_sorted() && starts.iter().all(|[old, new]| new > old),
        "{starts:?}"
    );
    assert!(
        lines
            .iter()
            .all(|line| line.to_slot.is_empty() || line.to_slot.starts_with(CUT))
    );
    no_slot_is_wrong(session).await
}

fn jiff_date(day: &str) -> anyhow::Result<proto::common::Date> {
    let day: jiff::civil::Date = day.parse()?;
    Ok(proto::common::Date {
        year: day.year().into(),
        month: day.month().into(),
        day: day.day().into(),
    })
}
