//! Leftover doses: never more accepted than there are, in an order that anybody can check; and what may not be asked.

use std::collections::{BTreeMap, BTreeSet};

use domain::Refusal;
use domain::leftover::{Place, PlaceState, Published, Report, RoundKey, audit};
use domain::name::LeftoversName;
use futures::StreamExt as _;
use proto::clinic::DeliverStockRequest;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::convert::from_timestamp;
use proto::leftover as pb;
use proto::leftover::leftover_service_client::LeftoverServiceClient;
use system_tests::await_until::await_until;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::terminals::{Morning, by};
use crate::world::{CALLER, HEARD_WITHIN, World, book, expect_refused, refusal, said_by};

const CAMPAIGN: &str = "evening";
const OTHER: &str = "another";
const VACCINE: &str = "mrna-one";
const CLINIC: &str = "regions/seoul/clinics/desk";
const SYSTEM: &str = "seoul--desk";
const NEIGHBOUR: &str = "seoul--next-door";
const BORN: &str = "1965-01-01";

fn id() -> String {
    Uuid::new_v4().to_string()
}

fn mine<T>(message: T) -> Request<T> {
    by(SYSTEM, "clinic", message)
}

fn join(permit: &str) -> pb::JoinLeftoversRequest {
    pb::JoinLeftoversRequest {
        permit: permit.to_owned(),
        request_id: id(),
        wish: Some(pb::Wish {
            to_minute: 1_440,
            ..pb::Wish::default()
        }),
    }
}

fn leave(permit: &str) -> pb::LeaveLeftoversRequest {
    pb::LeaveLeftoversRequest {
        permit: permit.to_owned(),
        request_id: id(),
    }
}

/// Doses until ten hours from now, drawn in a second.
fn offer(doses: u32) -> pb::OfferLeftoversRequest {
    let until = crate::signing::now().as_secs() + 36_000;
    pb::OfferLeftoversRequest {
        clinic: CLINIC.to_owned(),
        request_id: id(),
        campaign: CAMPAIGN.to_owned(),
        vaccine: VACCINE.to_owned(),
        doses,
        close_time: Some(proto::convert::timestamp(domain::Timestamp::from_secs(
            until,
        ))),
        notice_seconds: 1,
        answer_seconds: 600,
    }
}

fn answer(permit: &str, leftovers: &str, accept: bool) -> pb::AnswerLeftoverOfferRequest {
    pb::AnswerLeftoverOfferRequest {
        permit: permit.to_owned(),
        request_id: id(),
        leftovers: leftovers.to_owned(),
        accept,
    }
}

impl World {
    fn leftovers(&self) -> LeftoverServiceClient<Channel> {
        LeftoverServiceClient::new(self.gateway())
    }

    /// A clinic with nine doses that are in no slot, and a campaign whose doors are closed: leftovers ask for no turn.
    async fn evening(&self) -> anyhow::Result<()> {
        let morning = Morning::now()?;
        self.campaign_in(CAMPAIGN, VACCINE, morning.time_zone())
            .await?;
        self.clinic("seoul", "desk", VACCINE, &[(1, 60, 1)]).await?;
        let deliver = DeliverStockRequest {
            clinic: CLINIC.to_owned(),
            request_id: id(),
            vaccine: VACCINE.to_owned(),
            doses: 9,
        };
        ClinicServiceClient::new(self.gateway())
            .deliver_stock(mine(deliver))
            .await?;
        Ok(())
    }

    async fn permits(&self, people: usize) -> anyhow::Result<Vec<String>> {
        let permits = futures::stream::iter(0..people).map(|number| async move {
            let sub = format!("called-{number}");
            self.permit(CAMPAIGN, "seoul", &sub, BORN, CALLER).await
        });
        let permits: Vec<Result<_, Status>> = permits.buffered(16).collect().await;
        Ok(permits.into_iter().collect::<Result<_, _>>()?)
    }

    async fn joined(&self, permits: &[String]) -> anyhow::Result<()> {
        let first = join(&permits[0]);
        await_until("inventories know the campaign", HEARD_WITHIN, || async {
            let mut leftovers = self.leftovers();
            // Through both gateways, to whichever member of the region.
            leftovers
                .join_leftovers(said_by(CALLER, first.clone()))
                .await
                .is_ok()
        })
        .await?;
        let joins = futures::stream::iter(&permits[1..]).map(|permit| async move {
            let request = join(permit);
            // A member that has not heard of the campaign yet says so; the same request again is right.
            await_until("they have joined", HEARD_WITHIN, || async {
                let mut leftovers = self.leftovers();
                leftovers
                    .join_leftovers(said_by(CALLER, request.clone()))
                    .await
                    .is_ok()
            })
            .await
        });
        let joins: Vec<_> = joins.buffer_unordered(16).collect().await;
        for joined in joins {
            joined?;
        }
        Ok(())
    }

    async fn drawn(&self, name: &str) -> anyhow::Result<pb::GetLeftoversResponse> {
        let request = || pb::GetLeftoversRequest {
            leftovers: name.to_owned(),
        };
        await_until("the round is drawn", HEARD_WITHIN, || async {
            let found = self
                .leftovers()
                .get_leftovers(said_by(CALLER, request()))
                .await;
            found.is_ok_and(|found| {
                found
                    .into_inner()
                    .places
                    .iter()
                    .any(|place| place.offer_time.is_some())
            })
        })
        .await?;
        let found = self
            .leftovers()
            .get_leftovers(said_by(CALLER, request()))
            .await?;
        Ok(found.into_inner())
    }

    /// All that leftovers can change, as text.
    async fn evening_rows(&self) -> anyhow::Result<String> {
        let all = "SELECT concat_ws('|', (SELECT json_agg(t ORDER BY clinic, vaccine) FROM stock t),
            (SELECT json_agg(s ORDER BY slot_id) FROM slot s), (SELECT json_agg(c ORDER BY person, campaign) FROM claim c),
            (SELECT json_agg(w ORDER BY person) FROM leftover_wish w), (SELECT json_agg(r ORDER BY round) FROM leftover_round r),
            (SELECT json_agg(p ORDER BY round, rank) FROM leftover_place p), (SELECT count(*) FROM leftover_request),
            (SELECT count(*) FROM clinic_request), (SELECT count(*) FROM booking), (SELECT count(*) FROM request),
            (SELECT count(*) FROM event))";
        let row = self.ledger("seoul").await?.query_one(all, &[]).await?;
        Ok(row.get(0))
    }
}

fn audited(name: &str, found: &pb::GetLeftoversResponse) -> anyhow::Result<Report> {
    let name: LeftoversName = name.parse()?;
    let round = found.round.clone().unwrap_or_default();
    let state = |place: &pb::Place| match place.state() {
        pb::PlaceState::Waiting | pb::PlaceState::Unspecified => PlaceState::Waiting,
        pb::PlaceState::Offered => PlaceState::Offered,
        pb::PlaceState::Accepted => PlaceState::Accepted,
        pb::PlaceState::Declined => PlaceState::Declined,
        pb::PlaceState::Expired => PlaceState::Expired,
        pb::PlaceState::Left => PlaceState::Left,
        pb::PlaceState::Passed => PlaceState::Passed,
    };
    let places = found.places.iter().map(|place| Place {
        ticket: place.ticket.clone(),
        state: state(place),
        offered_at: place.offer_time.as_ref().map(from_timestamp),
        deadline: place.deadline.as_ref().map(from_timestamp),
        ended_at: place.end_time.as_ref().map(from_timestamp),
    });
    let published = Published {
        key: RoundKey {
            campaign: round.campaign.parse()?,
            clinic: name.clinic.clinic,
            round: name.round,
        },
        doses: round.doses,
        commitment: round.commitment.parse()?,
        seed: round.seed.parse()?,
        list_root: round.list_root.parse()?,
        candidates: round.candidates,
        places: places.collect(),
    };
    Ok(audit(&published)?)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one evening, and all that must hold after it"
)]
async fn of_300_who_answer_at_once_nine_get_the_nine_doses_and_the_order_holds()
-> anyhow::Result<()> {
    let world = World::start().await?;
    world.evening().await?;
    let permits = world.permits(300).await?;
    world.joined(&permits).await?;
    let offered = world.leftovers().offer_leftovers(mine(offer(9))).await?;
    let round = offered.into_inner().round.unwrap_or_default();
    assert_eq!((round.commitment.len(), round.seed.as_str()), (64, ""));
    let name = round.name.as_str();
    let drawn = world.drawn(name).await?.round.unwrap_or_default();
    assert_eq!(
        (drawn.candidates, &drawn.commitment),
        (300, &round.commitment)
    );

    // All answer at once, offered or not, in waves; one in three declines. Whoever accepts says it twice.
    let mut bookings = BTreeMap::new();
    for wave in 0..100 {
        let answers = permits.iter().enumerate().map(|(number, permit)| {
            let world = &world;
            async move {
                let request = answer(permit, name, (number + wave) % 3 != 0);
                let said = || async {
                    let mut leftovers = world.leftovers();
                    leftovers
                        .answer_leftover_offer(said_by(CALLER, request.clone()))
                        .await
                };
                let (first, second) = (said().await, said().await);
                (number, first, second)
            }
        });
        let answers = futures::stream::iter(answers).buffer_unordered(64);
        for (number, first, second) in answers.collect::<Vec<_>>().await {
            if let (Ok(first), Ok(second)) = (&first, &second) {
                assert!(second.get_ref().repeated_answer);
                assert_eq!(first.get_ref().booking, second.get_ref().booking);
            }
            // The first may have come before the offer, and the second after it.
            for said in [first, second] {
                match said {
                    Ok(said) => {
                        if let Some(booking) = said.into_inner().booking {
                            let before = bookings.insert(number, booking.name.clone());
                            assert!(before.is_none_or(|before| before == booking.name));
                        }
                    }
                    Err(status) => {
                        let allowed = [
                            Some(Refusal::OfferUnknown),
                            Some(Refusal::OfferAnswered),
                            Some(Refusal::LeftoversNotJoined),
                        ];
                        assert!(allowed.contains(&refusal(&status)), "{status:?}");
                    }
                }
            }
        }
        if bookings.len() >= 9 {
            break;
        }
        let left = format!("somebody is asked in wave {wave}");
        await_until(&left, HEARD_WITHIN, || async {
            let request = pb::GetLeftoversRequest {
                leftovers: name.to_owned(),
            };
            let found = world
                .leftovers()
                .get_leftovers(said_by(CALLER, request))
                .await;
            found.is_ok_and(|found| {
                found
                    .into_inner()
                    .places
                    .iter()
                    .any(|p| p.state() == pb::PlaceState::Offered)
            })
        })
        .await?;
    }
    assert_eq!(bookings.len(), 9, "people who accepted");
    let different: BTreeSet<_> = bookings.values().collect();
    assert_eq!(different.len(), 9, "one booking for two people");
    let found = world.drawn(name).await?;
    let report = audited(name, &found)?;
    assert_eq!(
        (report.candidates, report.doses, report.accepted),
        (300, 9, 9)
    );
    let row = world
        .ledger("seoul")
        .await?
        .query_one(
            "SELECT (SELECT count(*) FROM claim WHERE state = 'BOOKED'),
                (SELECT count(*) FROM booking WHERE state = 'BOOKED'),
                (SELECT booked::bigint FROM slot WHERE NOT open), (SELECT leftover + walk_in FROM stock)",
            &[],
        )
        .await?;
    let counts: [i64; 4] = std::array::from_fn(|at| row.get(at));
    assert_eq!(counts, [9, 9, 9, 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of attacks")]
async fn what_may_not_be_asked_of_leftovers_is_refused_with_its_reason_and_changes_nothing()
-> anyhow::Result<()> {
    let world = World::start().await?;
    world.evening().await?;
    let morning = Morning::now()?;
    world
        .campaign_in(OTHER, VACCINE, morning.time_zone())
        .await?;
    let beside = world
        .clinic("seoul", "next-door", VACCINE, &[(1, 60, 1)])
        .await?;
    let permits = world.permits(4).await?;
    world.joined(&permits[..3]).await?;
    let told = world
        .leftovers()
        .offer_leftovers(mine(offer(2)))
        .await?
        .into_inner();
    let round = told.round.unwrap_or_default().name;
    let name = round.as_str();
    world.drawn(name).await?;
    let standing = |permit: String| {
        let world = &world;
        async move {
            let request = pb::ListLeftoverOffersRequest { permit };
            let told = world
                .leftovers()
                .list_leftover_offers(said_by(CALLER, request))
                .await?;
            let told = told.into_inner();
            Ok::<_, Status>(
                told.offers
                    .iter()
                    .any(|o| o.state() == pb::PlaceState::Offered),
            )
        }
    };
    let (mut called, mut waiting) = (Vec::new(), Vec::new());
    for permit in &permits[..3] {
        if standing(permit.clone()).await? {
            called.push(permit.clone());
        } else {
            waiting.push(permit.clone());
        }
    }
    assert_eq!((called.len(), waiting.len()), (2, 1));
    let jeju = world
        .permit(CAMPAIGN, "jeju", "islander", BORN, CALLER)
        .await?;
    let other = world
        .permit(OTHER, "seoul", "called-0", BORN, CALLER)
        .await?;

    let before = world.evening_rows().await?;
    let people = || world.leftovers();
    let stranger = &permits[3];
    let not_called = people()
        .answer_leftover_offer(said_by(CALLER, answer(stranger, name, true)))
        .await;
    expect_refused("nobody called", not_called, Refusal::OfferUnknown)?;
    let later = people()
        .answer_leftover_offer(said_by(CALLER, answer(&waiting[0], name, true)))
        .await;
    expect_refused("not reached", later, Refusal::OfferUnknown)?;
    let left = people()
        .leave_leftovers(said_by(CALLER, leave(stranger)))
        .await;
    expect_refused("never joined", left, Refusal::LeftoversNotJoined)?;
    let unknown = answer(&called[0], &format!("{CLINIC}/leftovers/999"), true);
    let unknown = people()
        .answer_leftover_offer(said_by(CALLER, unknown))
        .await;
    expect_refused("no such round", unknown, Refusal::LeftoversUnknown)?;
    let next_door = name.replace("/desk/", "/next-door/");
    let next_door = people()
        .answer_leftover_offer(said_by(CALLER, answer(&called[0], &next_door, true)))
        .await;
    expect_refused("the neighbour's", next_door, Refusal::LeftoversUnknown)?;
    for (what, permit, caller, why) in [
        (
            "another region's permit",
            &jeju,
            CALLER,
            Refusal::PermitForeignRegion,
        ),
        (
            "another app's permit",
            &called[0],
            "app-two",
            Refusal::PermitForeignCaller,
        ),
        (
            "no permit",
            &"v4.public.AAAA.AAAA".to_owned(),
            CALLER,
            Refusal::PermitInvalid,
        ),
    ] {
        let got = people()
            .answer_leftover_offer(said_by(caller, answer(permit, name, true)))
            .await;
        expect_refused(what, got, why)?;
    }
    // The other campaign's inventories may not know it yet; what they then say is another reason.
    await_until("the other campaign is known", HEARD_WITHIN, || async {
        let got = people()
            .answer_leftover_offer(said_by(CALLER, answer(&other, name, true)))
            .await;
        got.is_err_and(|status| refusal(&status) == Some(Refusal::LeftoversUnknown))
    })
    .await?;
    let wrong = pb::JoinLeftoversRequest {
        permit: stranger.clone(),
        request_id: id(),
        wish: Some(pb::Wish {
            districts: vec![String::new()],
            near: Some(pb::Near {
                latitude: f64::NAN,
                longitude: 181.0,
                distance_metres: 0,
            }),
            vaccines: vec!["'; DROP TABLE stock".to_owned()],
            from_minute: 1_440,
            to_minute: 7,
        }),
    };
    let wrong = people().join_leftovers(said_by(CALLER, wrong)).await;
    let wrong = expect_refused("a wish of nothing but mistakes", wrong, Refusal::Invalid)?;
    let fields: BTreeSet<_> = wrong
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    let all = [
        "wish.districts[0]",
        "wish.from_minute",
        "wish.near.distance_metres",
        "wish.near.latitude",
        "wish.near.longitude",
        "wish.to_minute",
        "wish.vaccines[0]",
    ];
    assert_eq!(fields, BTreeSet::from(all));

    for (system, role, why) in [
        (NEIGHBOUR, "clinic", Refusal::ClinicForeign),
        ("jeju--desk", "clinic", Refusal::ClinicForeign),
        (SYSTEM, "mobile", Refusal::CallerForbidden),
        (SYSTEM, "operator", Refusal::CallerForbidden),
        (SYSTEM, "auditor", Refusal::CallerForbidden),
    ] {
        let what = format!("{system} as {role}");
        let got = people().offer_leftovers(by(system, role, offer(1))).await;
        expect_refused(&what, got, why)?;
        let close = pb::CloseLeftoversRequest {
            leftovers: name.to_owned(),
            request_id: id(),
        };
        let got = people().close_leftovers(by(system, role, close)).await;
        expect_refused(&what, got, why)?;
    }
    for role in ["operator", "auditor"] {
        let got = people()
            .join_leftovers(by(CALLER, role, join(stranger)))
            .await;
        expect_refused(role, got, Refusal::CallerForbidden)?;
        let got = people()
            .answer_leftover_offer(by(CALLER, role, answer(&called[0], name, true)))
            .await;
        expect_refused(role, got, Refusal::CallerForbidden)?;
    }
    let beyond = people().offer_leftovers(mine(offer(8))).await;
    let beyond = expect_refused("more than are left", beyond, Refusal::StockExceeded)?;
    assert_eq!(
        beyond.violations,
        [("doses".to_owned(), "7 doses are left".to_owned())]
    );
    let mut tomorrow = offer(1);
    tomorrow.close_time.as_mut().expect("a time").seconds += 86_400;
    let tomorrow = people().offer_leftovers(mine(tomorrow)).await;
    expect_refused("until tomorrow", tomorrow, Refusal::Invalid)?;
    let mut past = offer(1);
    past.close_time.as_mut().expect("a time").seconds -= 36_000;
    let past = people().offer_leftovers(mine(past)).await;
    expect_refused("until now", past, Refusal::InThePast)?;
    let mut foreign = offer(1);
    (foreign.vaccine, foreign.doses, foreign.answer_seconds) = ("vector".to_owned(), 0, 1);
    let foreign = people().offer_leftovers(mine(foreign)).await;
    let foreign = expect_refused("nothing of nothing", foreign, Refusal::Invalid)?;
    assert_eq!(foreign.violations.len(), 3, "{:?}", foreign.violations);
    assert_eq!(
        world.evening_rows().await?,
        before,
        "changed although refused"
    );

    // What is right goes through, once, and is a booking: no second one beside it, in no way.
    let accept = answer(&called[0], name, true);
    let first = people()
        .answer_leftover_offer(said_by(CALLER, accept.clone()))
        .await?
        .into_inner();
    assert!(first.booking.is_some() && first.claim_version == 1);
    let decline = people()
        .answer_leftover_offer(said_by(CALLER, answer(&called[1], name, false)))
        .await?;
    assert_eq!(decline.into_inner().booking, None);
    let before = world.evening_rows().await?;
    let again = people()
        .answer_leftover_offer(said_by(CALLER, accept.clone()))
        .await?
        .into_inner();
    assert!(again.repeated_answer && again.booking == first.booking);
    let mut reused = accept;
    reused.accept = false;
    let reused = people()
        .answer_leftover_offer(said_by(CALLER, reused))
        .await;
    expect_refused("another body", reused, Refusal::RequestIdReused)?;
    let twice = people()
        .answer_leftover_offer(said_by(CALLER, answer(&called[1], name, true)))
        .await;
    expect_refused("declined before", twice, Refusal::OfferAnswered)?;
    if world.evening_rows().await? != before {
        // The declined dose was passed on meanwhile: that is the only change there may be.
        await_until("the next is asked", HEARD_WITHIN, || async {
            standing(waiting[0].clone()).await.is_ok_and(|asked| asked)
        })
        .await?;
    }
    world.open(CAMPAIGN).await?;
    let second = book(&called[0], &[&beside[0]]);
    await_until("a second booking is refused", HEARD_WITHIN, || async {
        let got = world.book(CALLER, second.clone()).await;
        got.is_err_and(|status| refusal(&status) == Some(Refusal::AlreadyBooked))
    })
    .await?;
    Ok(())
}
