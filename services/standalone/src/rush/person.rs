//! One person's way: look in the own district, then in the region; book; and what some people do besides.
//!
//! Behaviour follows from the person's number and the seed: some hold first, some book two doses, some use two devices
//! at the same instant, some send the same request again, some move, some cancel.

mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::name::{BookingName, SlotName};
use domain::{BookingId, ClaimVersion, RequestId, SlotId};
use proto::availability::ListSlotsRequest;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::{
    BookRequest, Booking, CancelBookingRequest, ConfirmHoldRequest, HoldSlotsRequest,
    MoveBookingRequest,
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Rush;
use super::acks::{Ack, Kind};
use super::habits::{Habit, habit, pick};
use super::manners::{Manner, manner};
use super::permits::Store;
use super::plan::VACCINE;
use super::stats::Call;
use crate::client::Called;
use crate::population::spread;

/// Slots that somebody else took before a person tries elsewhere for the last time.
const INTENTS_MAX: u32 = 30;
/// The longest a call is waited for.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a person is about to do, kept between tries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    intents: u32,
    slots: Vec<String>,
    request: Option<Uuid>,
    hold: Option<(String, ClaimVersion, Uuid)>,
    version: ClaimVersion,
    /// Was told that it is their turn, or does not ask.
    admitted: bool,
    /// Came on their turn.
    pub(super) arrived: bool,
    /// Went away once.
    left: bool,
    /// Times that booking was refused because it was not their turn.
    refused_early: u32,
}

/// One call and how it ended.
pub(crate) struct Called1 {
    /// Which.
    pub call: Call,
    /// `OK` or the reason.
    pub outcome: &'static str,
    /// When it should have been sent.
    pub due: Instant,
    /// When it was.
    pub sent: Instant,
    /// When the answer came.
    pub answered: Instant,
}

/// What a person did this time.
pub(crate) struct Acted {
    /// The person.
    pub number: u64,
    /// What is to be kept if they come again.
    pub plan: Plan,
    /// Their calls.
    pub calls: Vec<Called1>,
    /// What was acknowledged.
    pub acks: Vec<Ack>,
    /// When they come again.
    pub again: Option<Instant>,
    /// Where they live.
    pub region: u8,
    /// They came on their turn, just now.
    pub arrived: Option<(Manner, Instant)>,
    /// They were told, waiting, that nothing is left.
    pub told: bool,
    /// They never come.
    pub absent: bool,
    /// They found nothing left.
    pub sold_out: bool,
    /// Answers that broke a promise.
    pub broken: Vec<&'static str>,
}

struct Acting {
    rush: Arc<Rush>,
    number: u64,
    region: u8,
    permit: String,
    channel: Called,
    manner: Manner,
    due: Instant,
    out: Acted,
}

/// Does what the person does now.
pub(crate) async fn act(
    rush: Arc<Rush>,
    store: Arc<Store>,
    number: u64,
    due: Instant,
    plan: Plan,
) -> anyhow::Result<Acted> {
    let permit = store.permit(number)?;
    let at = usize::try_from(spread(number))? % rush.channels.len();
    let home = &rush.population.person(number).district.region;
    let region = rush
        .regions
        .iter()
        .position(|region| region == home)
        .unwrap_or(0);
    let mut acting = Acting {
        number,
        region: u8::try_from(region)?,
        permit,
        channel: rush.channels[at].clone(),
        manner: manner(number, rush.args.seed, rush.args.absent),
        due,
        out: Acted {
            number,
            plan,
            calls: Vec::new(),
            acks: Vec::new(),
            again: None,
            region: u8::try_from(region)?,
            arrived: None,
            told: false,
            absent: false,
            sold_out: false,
            broken: Vec::new(),
        },
        rush,
    };
    acting.go().await;
    Ok(acting.out)
}

/// The person inside a permit: signed, not encrypted.
fn person_of(permit: &str) -> Option<[u8; 16]> {
    let claims = super::history::payload(permit).ok()?;
    let text = claims.get("person")?.as_str()?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

impl Acting {
    async fn go(&mut self) {
        if !self.turn().await {
            return;
        }
        let habit = habit(self.number, self.rush.args.seed);
        if let Some((hold, version, request)) = self.out.plan.hold.clone() {
            self.confirm(hold, version, request).await;
            return;
        }
        if self.out.plan.slots.is_empty() && !self.choose(habit).await {
            return;
        }
        match habit {
            Habit::HoldsFirst => self.hold().await,
            Habit::TwoDevices if self.out.plan.request.is_none() => self.two_devices().await,
            Habit::Plain
            | Habit::TwoDoses
            | Habit::TwoDevices
            | Habit::SendsAgain
            | Habit::Moves
            | Habit::Cancels => {
                if let Some((booking, version)) = self.book().await {
                    self.afterwards(habit, booking, version).await;
                }
            }
        }
    }

    /// Looks for a slot; `false` when there is none or the call has to be made again.
    async fn choose(&mut self, habit: Habit) -> bool {
        let district = self.rush.population.person(self.number).district.clone();
        for of in [district.name.as_str(), ""] {
            let request = ListSlotsRequest {
                region: district.region.clone(),
                district: of.to_owned(),
                vaccine: VACCINE.to_owned(),
                dose: if habit == Habit::TwoDoses { 0 } else { 1 },
                page_size: 200,
                ..ListSlotsRequest::default()
            };
            let mut client = AvailabilityServiceClient::new(self.channel.clone());
            let answer = self
                .call(Call::ListSlots, client.list_slots(timed(request)))
                .await;
            match answer {
                Ok(page) => {
                    let slots = pick(&page.slots, habit, self.number, self.out.plan.intents);
                    if !slots.is_empty() {
                        self.out.plan.slots = slots;
                        self.out.plan.request = None;
                        self.out.plan.intents += 1;
                        return true;
                    }
                }
                Err(status) => {
                    self.come_again(&status);
                    return false;
                }
            }
        }
        self.out.sold_out = true;
        false
    }

    async fn book(&mut self) -> Option<(Booking, ClaimVersion)> {
        let request_id = *self.out.plan.request.get_or_insert_with(Uuid::new_v4);
        let request = self.book_request(request_id);
        let mut client = BookingServiceClient::new(self.channel.clone());
        let mut request = timed(request);
        if self.manner == Manner::WrongClock {
            wrong_clock(&mut request);
        }
        match self.call(Call::Book, client.book(request)).await {
            Ok(answer) => {
                let booking = answer.booking?;
                let version = ClaimVersion(answer.claim_version);
                self.acknowledge(Kind::Booked, request_id, &booking, version);
                Some((booking, version))
            }
            Err(status) => {
                self.refused(&status);
                None
            }
        }
    }

    fn book_request(&self, request_id: Uuid) -> BookRequest {
        BookRequest {
            permit: self.permit.clone(),
            request_id: request_id.to_string(),
            claim_version: self.out.plan.version.0,
            slots: self.out.plan.slots.clone(),
        }
    }

    /// Two devices, two request ids, one instant: exactly one may win.
    async fn two_devices(&mut self) {
        let (first_id, second_id) = (Uuid::new_v4(), Uuid::new_v4());
        let (first, second) = (self.book_request(first_id), self.book_request(second_id));
        let (mut one, mut two) = (
            BookingServiceClient::new(self.channel.clone()),
            BookingServiceClient::new(self.channel.clone()),
        );
        let sent = super::now();
        let (first, second) = tokio::join!(one.book(timed(first)), two.book(timed(second)));
        let answered = super::now();
        let mut won = 0;
        for (request, answer) in [(first_id, first), (second_id, second)] {
            let outcome = outcome(&answer);
            self.out.calls.push(Called1 {
                call: Call::Book,
                outcome,
                due: self.due,
                sent,
                answered,
            });
            match answer.map(tonic::Response::into_inner) {
                Ok(answer) => {
                    won += 1;
                    if let Some(booking) = answer.booking {
                        let version = ClaimVersion(answer.claim_version);
                        self.acknowledge(Kind::Booked, request, &booking, version);
                    }
                }
                Err(status) if won == 0 && retriable(&status) => {
                    // This device goes on with its own request.
                    self.out.plan.request = Some(request);
                    self.come_again(&status);
                }
                Err(status) => {
                    if won == 0 {
                        self.refused(&status);
                    }
                }
            }
        }
        if won > 0 {
            self.out.again = None;
        }
        if won > 1 {
            self.out
                .broken
                .push("two devices of one person both got a booking");
        }
    }

    async fn hold(&mut self) {
        let request_id = *self.out.plan.request.get_or_insert_with(Uuid::new_v4);
        let request = HoldSlotsRequest {
            permit: self.permit.clone(),
            request_id: request_id.to_string(),
            claim_version: self.out.plan.version.0,
            slots: self.out.plan.slots.clone(),
        };
        let mut client = BookingServiceClient::new(self.channel.clone());
        match self
            .call(Call::HoldSlots, client.hold_slots(timed(request)))
            .await
        {
            Ok(answer) => {
                let Some(hold) = answer.hold else {
                    self.out
                        .broken
                        .push("a hold was acknowledged without a hold");
                    return;
                };
                let version = ClaimVersion(answer.claim_version);
                if let Some(booking) = hold.name.rsplit('/').next().and_then(|id| id.parse().ok()) {
                    let slots = slot_ids(&hold.slots);
                    self.ack(Kind::Held, request_id, booking, slots, version);
                }
                self.confirm(hold.name, version, Uuid::new_v4()).await;
            }
            Err(status) => self.refused(&status),
        }
    }

    async fn confirm(&mut self, hold: String, version: ClaimVersion, request_id: Uuid) {
        let request = ConfirmHoldRequest {
            permit: self.permit.clone(),
            request_id: request_id.to_string(),
            claim_version: version.0,
            hold: hold.clone(),
        };
        let mut client = BookingServiceClient::new(self.channel.clone());
        match self
            .call(Call::ConfirmHold, client.confirm_hold(timed(request)))
            .await
        {
            Ok(answer) => {
                self.out.plan.hold = None;
                if let Some(booking) = answer.booking {
                    let version = ClaimVersion(answer.claim_version);
                    self.acknowledge(Kind::Booked, request_id, &booking, version);
                }
            }
            Err(status) => {
                self.out.plan.hold = Some((hold, version, request_id));
                if retriable(&status) {
                    self.come_again(&status);
                } else {
                    self.out.plan.hold = None;
                    self.refused(&status);
                }
            }
        }
    }

    async fn afterwards(&mut self, habit: Habit, booking: Booking, version: ClaimVersion) {
        self.due = super::now();
        match habit {
            Habit::SendsAgain => {
                let request_id = self.out.plan.request.unwrap_or_default();
                let request = self.book_request(request_id);
                let mut client = BookingServiceClient::new(self.channel.clone());
                if let Ok(answer) = self.call(Call::Book, client.book(timed(request))).await
                    && (!answer.repeated_answer
                        || answer.booking.map(|b| b.name) != Some(booking.name))
                {
                    self.out.broken.push("the same request got another answer");
                }
            }
            Habit::Moves => self.move_elsewhere(&booking, version).await,
            Habit::Cancels => {
                let request_id = Uuid::new_v4();
                let request = CancelBookingRequest {
                    permit: self.permit.clone(),
                    request_id: request_id.to_string(),
                    claim_version: version.0,
                    booking: booking.name.clone(),
                    dose: 0,
                };
                let mut client = BookingServiceClient::new(self.channel.clone());
                let answer = self
                    .call(Call::CancelBooking, client.cancel_booking(timed(request)))
                    .await;
                if let Ok(answer) = answer {
                    let version = ClaimVersion(answer.claim_version);
                    self.acknowledge(Kind::Cancelled, request_id, &booking, version);
                }
            }
            Habit::Plain | Habit::HoldsFirst | Habit::TwoDoses | Habit::TwoDevices => {}
        }
    }

    async fn move_elsewhere(&mut self, booking: &Booking, version: ClaimVersion) {
        let old = self.out.plan.slots.clone();
        self.out.plan.slots.clear();
        let found = self.choose(Habit::Moves).await;
        self.out.sold_out = false;
        self.out.again = None;
        let Some(slot) = self
            .out
            .plan
            .slots
            .first()
            .filter(|slot| found && !old.contains(slot))
        else {
            return;
        };
        let request_id = Uuid::new_v4();
        let request = MoveBookingRequest {
            permit: self.permit.clone(),
            request_id: request_id.to_string(),
            claim_version: version.0,
            booking: booking.name.clone(),
            dose: 1,
            slot: slot.clone(),
        };
        let mut client = BookingServiceClient::new(self.channel.clone());
        let answer = self
            .call(Call::MoveBooking, client.move_booking(timed(request)))
            .await;
        if let Ok(answer) = answer
            && let Some(booking) = answer.booking
        {
            self.acknowledge(
                Kind::Moved,
                request_id,
                &booking,
                ClaimVersion(answer.claim_version),
            );
        }
    }

    async fn call<T>(
        &mut self,
        call: Call,
        work: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let sent = super::now();
        let answer = work.await;
        let answered = super::now();
        let outcome = outcome(&answer);
        // Who never asked for their place has come once a booking is not refused for being early.
        if matches!(call, Call::Book | Call::HoldSlots) && answer_of_a_turn(outcome) {
            self.arrive();
        }
        self.out.plan.refused_early += u32::from(outcome == "NOT_ADMITTED");
        self.out.calls.push(Called1 {
            call,
            outcome,
            due: self.due,
            sent,
            answered,
        });
        if answer.is_ok() {
            // The next call is due when this one was answered.
            self.due = answered;
        }
        answer.map(tonic::Response::into_inner)
    }

    fn acknowledge(&mut self, kind: Kind, request: Uuid, booking: &Booking, version: ClaimVersion) {
        let Ok(name) = booking.name.parse::<BookingName>() else {
            self.out
                .broken
                .push("a booking was acknowledged under a malformed name");
            return;
        };
        let names: Vec<String> = booking
            .appointments
            .iter()
            .map(|one| one.slot.clone())
            .collect();
        self.ack(kind, request, name.booking, slot_ids(&names), version);
    }

    fn ack(
        &mut self,
        kind: Kind,
        request: Uuid,
        booking: BookingId,
        slots: [SlotId; 2],
        version: ClaimVersion,
    ) {
        let person = person_of(&self.permit).unwrap_or_default();
        let (region, request) = (self.region, RequestId(request));
        self.out.acks.push(Ack {
            person,
            region,
            kind,
            request,
            booking,
            slots,
            version,
        });
    }

    /// A no: try elsewhere, come again, or be content.
    fn refused(&mut self, status: &Status) {
        if retriable(status) {
            return self.come_again(status);
        }
        match reason(status) {
            // The other device was faster, or an earlier try had come through.
            "ALREADY_BOOKED" => {}
            _ if self.out.plan.intents < INTENTS_MAX => {
                let version = proto::status::read(status).and_then(|refused| refused.claim_version);
                self.out.plan.version = version.unwrap_or(self.out.plan.version);
                self.out.plan.slots.clear();
                self.out.plan.request = None;
                self.out.again = Some(super::now());
            }
            _ => self.out.sold_out = true,
        }
    }

    fn come_again(&mut self, status: &Status) {
        let after = proto::status::read(status).and_then(|refused| refused.retry_after);
        // As told, and up to a quarter later, so that people do not come back in step.
        let after = after
            .unwrap_or(Duration::from_millis(300))
            .max(Duration::from_millis(50));
        let jitter = after.mul_f64((spread(self.number) % 256) as f64 / 1_024.0);
        self.out.again = Some(super::now() + after + jitter);
    }
}

/// What a device says whose owner has set the date forward.
fn wrong_clock<T>(request: &mut tonic::Request<T>) {
    let tomorrow = tonic::metadata::MetadataValue::from_static("Fri, 01 Jan 2100 00:00:00 GMT");
    request.metadata_mut().insert("date", tomorrow);
}

/// Only people whose turn it is hear these.
fn answer_of_a_turn(outcome: &str) -> bool {
    matches!(outcome, "OK" | "SLOT_FULL" | "SLOT_CLOSED")
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn retriable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
    ) || matches!(reason(status), "NOT_ADMITTED" | "ROOM_PAUSED")
}

fn reason(status: &Status) -> &'static str {
    proto::status::read(status)
        .map_or_else(|| code(status.code()), |refused| refused.refusal.code())
}

fn outcome<T>(answer: &Result<tonic::Response<T>, Status>) -> &'static str {
    match answer {
        Ok(_) => "OK",
        Err(status) => reason(status),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other codes are not Doseline's"
)]
const fn code(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "no connection",
        Code::DeadlineExceeded | Code::Cancelled => "no answer in time",
        Code::Internal => "INTERNAL",
        _ => "another status",
    }
}

fn slot_ids(names: &[String]) -> [SlotId; 2] {
    let id = |at: usize| names.get(at).and_then(|name| name.parse::<SlotName>().ok());
    [id(0), id(1)].map(|name| name.map_or(SlotId(0), |name| name.slot))
}
