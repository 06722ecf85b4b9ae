//! More people than places, all at once.

use std::sync::Arc;

use domain::{Op, Refusal, SlotId, Verdict};
use inventory::ledger::{CancelOp, Ledger, MoveOp};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::desk::{Desk, done, one};
use crate::world::{World, offer};

const TASKS: usize = 64;
const ATTEMPTS: usize = 2_000;
const PLACES: u32 = 500;
const SHARDS: u32 = 4;

type Desks = Arc<Vec<Mutex<Desk>>>;

async fn desks(world: &World) -> Desks {
    let mut desks = Vec::new();
    for shard in 0..SHARDS {
        desks.push(Mutex::new(world.desk(shard).await));
    }
    Arc::new(desks)
}

/// Everybody books once; answers who got a place: the op and what was recorded.
async fn race(world: &World, desks: &Desks, slots: &[SlotId]) -> Vec<(Op, Verdict)> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let mine: Vec<(usize, Op)> = (task..ATTEMPTS)
            .step_by(TASKS)
            .map(|attempt| {
                let shard = attempt % slots.len();
                let who = world.person(u64::try_from(attempt).expect("few") + 1);
                (shard, world.book(&who, 0, one(slots[shard])))
            })
            .collect();
        let desks = Arc::clone(desks);
        tasks.spawn(async move {
            let mut ended = Vec::new();
            for (shard, op) in mine {
                let verdict = desks[shard].lock().await.one(&op).await;
                ended.push((op, verdict));
            }
            ended
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

fn winners(ended: &[(Op, Verdict)]) -> usize {
    ended
        .iter()
        .filter(|(_, verdict)| match verdict {
            Verdict::Done(_) => true,
            Verdict::Refused { refusal, .. } => {
                assert_eq!(*refusal, Refusal::SlotFull);
                false
            }
            Verdict::Exists(_) => panic!("nobody repeated a request"),
        })
        .count()
}

async fn booked_in_all(ledger: &dyn Ledger, slots: &[SlotId]) -> u32 {
    let found = ledger.slots(slots).await.expect("slots");
    found.iter().map(|slot| slot.booked).sum()
}

pub async fn of_2000_who_race_for_500_places_exactly_500_get_one(world: &World) {
    let offers: Vec<_> = (0..SHARDS)
        .map(|shard| offer(shard, PLACES / SHARDS))
        .collect();
    let slots = world.offers(SHARDS, &offers).await;
    let desks = desks(world).await;
    let ended = race(world, &desks, &slots).await;
    assert_eq!(ended.len(), ATTEMPTS);
    assert_eq!(winners(&ended), 500);
    assert_eq!(booked_in_all(&*world.ledger, &slots).await, PLACES);
}

pub async fn moves_in_the_middle_of_the_race_never_oversell_or_lose_a_place(world: &World) {
    let offers: Vec<_> = (0..SHARDS)
        .map(|shard| offer(shard, PLACES / SHARDS))
        .collect();
    let slots = world.offers(SHARDS, &offers).await;
    let desks = desks(world).await;
    // Eighty have a place before the doors open; they move about while the others come, and ten of them give up.
    let mut movers = JoinSet::new();
    for number in 0..80 {
        let mover = Mover::booked(world, &desks, &slots, number).await;
        let (ledger, desks) = (Arc::clone(&world.ledger), Arc::clone(&desks));
        movers.spawn(async move { mover.run(&*ledger, &desks).await });
    }
    let (ended, kept) = tokio::join!(race(world, &desks, &slots), movers.join_all());
    let kept = kept.into_iter().filter(|kept| *kept).count();
    assert_eq!(kept, 70);
    let live = u32::try_from(winners(&ended) + kept).expect("few");
    assert!(live <= PLACES);
    assert_eq!(booked_in_all(&*world.ledger, &slots).await, live);
    // Whoever was refused tries once more, everywhere: now exactly the places that moves and cancellations left go.
    let mut left = PLACES - live;
    let mut refused = ended
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Refused { .. }));
    while left > 0 {
        let (op, _) = refused.next().expect("someone was refused");
        for (desk, slot) in desks.iter().zip(&slots) {
            let again = world.book(&op.claimant, 0, one(*slot));
            if let Verdict::Done(_) = desk.lock().await.one(&again).await {
                left -= 1;
                break;
            }
        }
    }
    assert_eq!(booked_in_all(&*world.ledger, &slots).await, PLACES);
}

/// Somebody with a place who wants another one, again and again.
struct Mover {
    steps: Vec<(usize, MoveOp)>,
    cancel: Option<CancelOp>,
}

impl Mover {
    async fn booked(world: &World, desks: &Desks, slots: &[SlotId], number: usize) -> Self {
        let home = number % slots.len();
        let who = world.person(u64::try_from(ATTEMPTS + number).expect("few") + 1);
        let op = world.book(&who, 0, one(slots[home]));
        let booking = desks[home].lock().await.does(&op).await.booking;
        let steps = (home + 1..home + 7)
            .map(|step| step % slots.len())
            .map(|shard| (shard, world.move_op(&who, 0, booking, 1, slots[shard])))
            .collect();
        let cancel = number
            .is_multiple_of(8)
            .then(|| world.cancel_op(&who, 0, booking, None));
        Self { steps, cancel }
    }

    /// Whether they have a place in the end.
    async fn run(self, ledger: &dyn Ledger, desks: &Desks) -> bool {
        let mut version = 1;
        for (shard, mut op) in self.steps {
            op.claim_version.0 = version;
            let (id, epoch) = {
                let desk = desks[shard].lock().await;
                (desk.shard, desk.epoch)
            };
            let answer = ledger.move_booking(id, epoch, &op).await;
            match answer.expect("the move is answered").verdict {
                Verdict::Done(recorded) => version = recorded.claim_version.0,
                Verdict::Refused { refusal, .. } => {
                    let expected = [Refusal::SlotFull, Refusal::SlotsMismatch];
                    assert!(expected.contains(&refusal), "{refusal:?}");
                }
                Verdict::Exists(_) => panic!("nobody repeated a move"),
            }
        }
        let Some(mut cancel) = self.cancel else {
            return true;
        };
        cancel.claim_version.0 = version;
        let answer = ledger.cancel(&cancel).await;
        done(answer.expect("the cancellation is answered").verdict);
        false
    }
}
