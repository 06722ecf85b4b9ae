//! A ledger under test with people, slots and owners in it, and what must hold after every case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::campaign::{BookingRules, DoseInterval};
use domain::command::BodyHash;
use domain::{
    Action, BookingId, CampaignId, ClaimVersion, Claimant, Epoch, InstanceId, Op, PersonId,
    Recorded, RequestId, Serial, ShardId, SlotId, SlotPair, SlotState, Timestamp,
};
use inventory::ledger::{
    AppointmentState, CancelOp, ClaimState, ClaimView, Clinic, ClinicSupply, Fault, Ledger, MoveOp,
    NewSlot, SeizeRequest, Seized, SideAnswer,
};

use crate::backends::Backend;
use crate::desk::Desk;

/// What the body of an ordinary request hashes to.
pub const BODY: BodyHash = BodyHash([1; 16]);
/// Another body.
pub const OTHER_BODY: BodyHash = BodyHash([2; 16]);
/// Dead before any later transaction, so that no test waits for a hold to die.
pub const AT_ONCE: Duration = Duration::ZERO;
/// Outlives every test.
pub const AN_HOUR: Duration = Duration::from_secs(3_600);

pub struct World {
    pub ledger: Arc<dyn Ledger>,
    pub campaign: CampaignId,
    rules: Arc<BookingRules>,
    next: AtomicU64,
    people: Mutex<BTreeSet<PersonId>>,
    backend: Box<dyn Backend>,
}

/// One slot to be offered at the clinic of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub shard: u32,
    pub dose: u8,
    pub capacity: u32,
    pub open: bool,
    pub vaccine: &'static str,
}

/// An open slot of a shard for the first dose.
pub const fn offer(shard: u32, capacity: u32) -> Offer {
    Offer {
        shard,
        dose: 1,
        capacity,
        open: true,
        vaccine: "mrna",
    }
}

impl Offer {
    pub const fn second_dose(mut self) -> Self {
        self.dose = 2;
        self
    }

    pub const fn closed(mut self) -> Self {
        self.open = false;
        self
    }

    pub const fn of_vaccine(mut self, vaccine: &'static str) -> Self {
        self.vaccine = vaccine;
        self
    }

    pub fn starting_at(self, hour: usize) -> NewSlot {
        let hour = i64::try_from(hour).expect("few slots");
        NewSlot {
            starts_at: Timestamp::from_secs(4_102_444_800 + hour * 3_600),
            day: 47_482 + i32::try_from(hour / 24).expect("few days"),
            vaccine: self.vaccine.parse().expect("a vaccine"),
            dose: self.dose,
            capacity: self.capacity,
            open: self.open,
        }
    }
}

// === impl World ===

impl World {
    pub fn new(ledger: Arc<dyn Ledger>, backend: Box<dyn Backend>) -> Self {
        let rules = BookingRules {
            vaccines: ["mrna".parse().expect("a vaccine")].into(),
            dose_interval: DoseInterval {
                min_days: 0,
                max_days: 0,
            },
            hold_ttl_secs: 600,
        };
        Self {
            ledger,
            campaign: "kr-2021-fifties".parse().expect("a campaign"),
            rules: Arc::new(rules),
            next: AtomicU64::new(1),
            people: Mutex::default(),
            backend,
        }
    }

    /// A person with their first permit.
    pub fn person(&self, number: u64) -> Claimant {
        let mut bytes = [0; 16];
        // Neither in the order of the numbers nor all alike at the front.
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        let person = PersonId::from_bytes(bytes);
        self.people
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(person);
        Claimant {
            campaign: self.campaign.clone(),
            person,
            serial: Serial(1),
        }
    }

    fn unique(&self) -> [u8; 16] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (u128::from(number) << 64 | u128::from(number.wrapping_mul(0xD134_2543_DE82_EF95)))
            .to_be_bytes()
    }

    pub fn request(&self) -> RequestId {
        RequestId::from_bytes(self.unique())
    }

    pub fn booking(&self) -> BookingId {
        BookingId::from_bytes(self.unique())
    }

    /// Makes `shards` shards with one clinic each, well stocked, and the slots; answers their ids in the same order.
    pub async fn offers(&self, shards: u32, offers: &[Offer]) -> Vec<SlotId> {
        self.ledger.ensure_shards(shards).await.expect("shards");
        let supply: Vec<ClinicSupply> = (0..shards)
            .map(|shard| {
                let hours = offers.iter().enumerate().filter(|(_, o)| o.shard == shard);
                let slots: Vec<NewSlot> = hours.map(|(hour, o)| o.starting_at(hour)).collect();
                ClinicSupply {
                    clinic: clinic(shard),
                    received: slots.iter().map(|s| (s.vaccine.clone(), 100_000)).collect(),
                    slots,
                }
            })
            .collect();
        self.ledger.apply(&supply, false).await.expect("supply");
        let mut by_hour = BTreeMap::new();
        for slot in self.all_slots().await {
            by_hour.insert(slot.starts_at, slot.slot);
        }
        (0..offers.len())
            .map(|hour| by_hour[&offers[hour].starting_at(hour).starts_at])
            .collect()
    }

    pub async fn all_slots(&self) -> Vec<SlotState> {
        let mut slots = Vec::new();
        for row in self.ledger.shards().await.expect("shards") {
            slots.extend(
                self.ledger
                    .catalogue(row.shard)
                    .await
                    .expect("catalogue")
                    .slots,
            );
        }
        slots
    }

    /// Takes over a shard, whoever had it.
    pub async fn desk(&self, shard: u32) -> Desk {
        let shard = ShardId(shard);
        let rows = self.ledger.shards().await.expect("shards");
        let row = rows
            .iter()
            .find(|row| row.shard == shard)
            .expect("the shard exists");
        let seized = self
            .seize(shard, row.epoch)
            .await
            .expect("the shard can be taken");
        Desk {
            shard,
            epoch: seized.epoch,
            seq: 0,
            writer: seized.writer,
        }
    }

    pub async fn seize(&self, shard: ShardId, expect: Epoch) -> Result<Seized, Fault> {
        self.ledger.seize(self.seize_request(shard, expect)).await
    }

    pub fn seize_request(&self, shard: ShardId, expect: Epoch) -> SeizeRequest {
        SeizeRequest {
            shard,
            expect,
            floor: Epoch(0),
            nonce: self.unique(),
            owner: instance("inventory-1"),
            addr: "127.0.0.1:7001".to_owned(),
        }
    }

    pub fn op(&self, who: &Claimant, version: u64, action: Action) -> Op {
        Op {
            claimant: who.clone(),
            request: self.request(),
            body_hash: BODY,
            claim_version: ClaimVersion(version),
            action,
            rules: Arc::clone(&self.rules),
        }
    }

    pub fn book(&self, who: &Claimant, version: u64, slots: SlotPair) -> Op {
        let booking = self.booking();
        self.op(who, version, Action::Book { slots, booking })
    }

    pub fn hold(&self, who: &Claimant, version: u64, slots: SlotPair, ttl: Duration) -> Op {
        let booking = self.booking();
        self.op(
            who,
            version,
            Action::Hold {
                slots,
                booking,
                ttl,
            },
        )
    }

    pub fn confirm(&self, who: &Claimant, version: u64, hold: BookingId) -> Op {
        self.op(who, version, Action::Confirm { hold })
    }

    pub fn release(&self, who: &Claimant, version: u64, hold: BookingId) -> Op {
        self.op(who, version, Action::Release { hold })
    }

    pub fn move_op(
        &self,
        who: &Claimant,
        version: u64,
        booking: BookingId,
        dose: u8,
        to: SlotId,
    ) -> MoveOp {
        MoveOp {
            claimant: who.clone(),
            request: self.request(),
            body_hash: BODY,
            claim_version: ClaimVersion(version),
            booking,
            dose,
            to,
        }
    }

    pub fn cancel_op(
        &self,
        who: &Claimant,
        version: u64,
        booking: BookingId,
        dose: Option<u8>,
    ) -> CancelOp {
        CancelOp {
            claimant: who.clone(),
            request: self.request(),
            body_hash: BODY,
            claim_version: ClaimVersion(version),
            booking,
            dose,
        }
    }

    pub async fn moved(&self, desk: &Desk, op: &MoveOp) -> SideAnswer {
        let answer = self.ledger.move_booking(desk.shard, desk.epoch, op).await;
        answer.expect("the move is answered")
    }

    pub async fn cancelled(&self, op: &CancelOp) -> SideAnswer {
        self.ledger
            .cancel(op)
            .await
            .expect("the cancellation is answered")
    }

    pub async fn booked(&self, slot: SlotId) -> u32 {
        let slots = self.ledger.slots(&[slot]).await.expect("slots");
        slots.first().expect("the slot exists").booked
    }

    pub async fn claim(&self, who: &Claimant) -> Option<ClaimView> {
        let claim = self.ledger.claim(&who.campaign, who.person).await;
        claim.expect("the claim can be read")
    }

    pub async fn recorded(&self, who: &Claimant, request: RequestId) -> Option<Recorded> {
        let key = (who.campaign.clone(), who.person, request);
        let found = self
            .ledger
            .recorded(&[key])
            .await
            .expect("requests can be read");
        assert_eq!(found.len(), 1);
        found
            .into_iter()
            .next()
            .flatten()
            .map(|(_, recorded)| recorded)
    }

    /// Lets all dead holds go, then holds the counts of slots against the claims of people, twice over.
    pub async fn check(&self) {
        for row in self.ledger.shards().await.expect("shards") {
            let mut desk = self.desk(row.shard.0).await;
            while self
                .ledger
                .has_expired_holds(row.shard)
                .await
                .expect("holds")
            {
                desk.seq += 1;
                desk.writer.sweep(desk.seq, 100).await.expect("sweep");
            }
        }
        let mut people: BTreeMap<SlotId, u32> = BTreeMap::new();
        let everybody = self
            .people
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for person in everybody {
            let claim = self
                .ledger
                .claim(&self.campaign, person)
                .await
                .expect("claim");
            for slot in claim.iter().flat_map(active_slots) {
                *people.entry(slot).or_default() += 1;
            }
        }
        for slot in self.all_slots().await {
            let counted = people.remove(&slot.slot).unwrap_or(0);
            assert_eq!(slot.booked, counted, "people of slot {}", slot.slot);
            assert!(
                slot.booked <= slot.capacity,
                "slot {} is oversold",
                slot.slot
            );
        }
        assert!(people.is_empty(), "people at slots that do not exist");
        self.backend.check_rows().await;
    }
}

/// The active appointments of a claim, which must fit its state.
fn active_slots(claim: &ClaimView) -> Vec<SlotId> {
    let state = match claim.state {
        ClaimState::Free | ClaimState::Surrendered => {
            assert!(claim.appointments.is_empty() && claim.booking.is_none());
            assert_eq!(claim.hold_until, None);
            return Vec::new();
        }
        ClaimState::Held => AppointmentState::Held,
        ClaimState::Booked => AppointmentState::Booked,
    };
    assert!(claim.booking.is_some());
    assert_eq!(claim.hold_until.is_some(), claim.state == ClaimState::Held);
    assert!((1..=2).contains(&claim.appointments.len()));
    let fits = |one: AppointmentState| {
        one == state || state == AppointmentState::Booked && one != AppointmentState::Held
    };
    assert!(claim.appointments.iter().all(|one| fits(one.state)));
    assert!(
        claim
            .appointments
            .is_sorted_by(|a, b| a.slot.dose < b.slot.dose)
    );
    claim.appointments.iter().map(|one| one.slot.slot).collect()
}

pub fn instance(name: &str) -> InstanceId {
    name.parse().expect("an instance")
}

pub fn clinic(shard: u32) -> Clinic {
    Clinic {
        clinic: format!("clinic-{shard}").parse().expect("a clinic"),
        shard: ShardId(shard),
        display_name: format!("보건소 {shard}"),
        district: "jongno".to_owned(),
        latitude: 37.5,
        longitude: 127.0,
    }
}

/// The person with a permit of another serial.
pub fn with_serial(who: &Claimant, serial: u64) -> Claimant {
    Claimant {
        serial: Serial(serial),
        ..who.clone()
    }
}
