//! One owner on a stage: a core, a ledger, and a shell that does as the table says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use domain::campaign::{BookingRules, DoseInterval};
use domain::{
    BookingId, ClaimVersion, Epoch, Op, PersonId, RequestId, ShardId, SlotId, Timestamp, Verdict,
};
use inventory_core::{
    Alarm, AskId, BatchFailure, Effect, Effects, Input, Limits, RequestKey, Shard, Stop,
};

use crate::ledger::{Ledger, SideOp};

pub(crate) const SHARD: ShardId = ShardId(0);

/// What one person knows.
#[derive(Default)]
pub(crate) struct Person {
    pub(crate) version: ClaimVersion,
    pub(crate) booking: Option<BookingId>,
    pub(crate) unheard: VecDeque<Verdict>,
}

/// What is sent to the ledger under a number; a sweep has no ops.
struct Statement {
    seq: u64,
    ops: Option<Vec<Op>>,
    limit: u32,
}

pub(crate) struct Stage {
    pub(crate) title: String,
    pub(crate) now: Timestamp,
    pub(crate) ledger: Ledger,
    pub(crate) remembered: Option<Ledger>,
    pub(crate) limits: Limits,
    core: Option<Shard>,
    pub(crate) people: BTreeMap<PersonId, Person>,
    pub(crate) requests: BTreeMap<String, RequestId>,
    pub(crate) next_id: u64,
    pub(crate) rules: Arc<BookingRules>,
    asks: BTreeMap<AskId, PersonId>,
    moves: BTreeMap<AskId, SideOp>,
    waiting: VecDeque<Statement>,
    pub(crate) slow: bool,
    pub(crate) away: u64,
    pub(crate) check_fires: u64,
    pub(crate) slots_unreadable: bool,
    /// Reads that were done but are not heard of yet, where they are slow.
    pub(crate) slow_reads: Option<VecDeque<Input>>,
    pub(crate) requests_unreadable: bool,
    /// The ledger is out of reach for good.
    pub(crate) cut_off: bool,
    pub(crate) published: BTreeMap<SlotId, u32>,
    pub(crate) alarms: VecDeque<Alarm>,
    pub(crate) stopped: Option<Stop>,
    pub(crate) batches: u64,
}

impl Stage {
    pub(crate) fn new(title: &str) -> Self {
        let mut ledger = Ledger::default();
        ledger
            .seize(SHARD, Epoch(0), Epoch(0), 1)
            .expect("nobody else is there");
        Self {
            title: title.to_owned(),
            now: Timestamp::default(),
            ledger,
            remembered: None,
            limits: Limits::default(),
            core: None,
            people: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_id: 0,
            rules: Arc::new(BookingRules {
                vaccines: std::iter::once("az".parse().expect("a slug")).collect(),
                dose_interval: DoseInterval {
                    min_days: 21,
                    max_days: 84,
                },
                hold_ttl_secs: 60,
            }),
            asks: BTreeMap::new(),
            moves: BTreeMap::new(),
            waiting: VecDeque::new(),
            slow: false,
            away: 0,
            check_fires: 0,
            slots_unreadable: false,
            slow_reads: None,
            requests_unreadable: false,
            published: BTreeMap::new(),
            alarms: VecDeque::new(),
            stopped: None,
            cut_off: false,
            batches: 0,
        }
    }

    /// Nothing is left unsaid: every alarm and every answer was expected.
    pub(crate) fn end(self) {
        let title = &self.title;
        assert!(
            self.alarms.is_empty(),
            "{title}: unexpected {:?}",
            self.alarms
        );
        let unheard: usize = self
            .people
            .values()
            .map(|person| person.unheard.len())
            .sum();
        assert_eq!(
            unheard, 0,
            "{title}: answers that the table does not mention"
        );
    }

    pub(crate) fn core(&mut self) -> &mut Shard {
        let limits = self.limits;
        self.core
            .get_or_insert_with(|| Shard::new(SHARD, Epoch(1), limits))
    }

    pub(crate) fn pass(&mut self, to: Timestamp) {
        self.now = to;
        self.ledger.now = to;
    }

    pub(crate) fn ask(&mut self, person: PersonId, op: Op) {
        let ask = self.new_ask(person);
        self.input(Input::Ask { ask, op });
    }

    pub(crate) fn ask_to_move(&mut self, person: PersonId, op: SideOp, slot: SlotId) {
        let ask = self.new_ask(person);
        self.moves.insert(ask, op);
        self.input(Input::Reserve { ask, slot });
    }

    pub(crate) fn cancel(&mut self, person: PersonId, op: &SideOp) {
        let (verdict, _) = self.ledger.side(op, None).expect("needs no epoch");
        self.tell(person, verdict);
    }

    fn new_ask(&mut self, person: PersonId) -> AskId {
        self.next_id += 1;
        let ask = AskId(self.next_id);
        self.asks.insert(ask, person);
        ask
    }

    fn tell(&mut self, person: PersonId, verdict: Verdict) {
        let person = self.people.entry(person).or_default();
        match &verdict {
            Verdict::Done(answer) | Verdict::Exists(answer) => {
                person.version = answer.claim_version;
                person.booking = Some(answer.booking);
            }
            Verdict::Refused { claim_version, .. } => {
                person.version = claim_version.unwrap_or(person.version);
            }
        }
        person.unheard.push_back(verdict);
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Effects::default();
        while let Some(input) = inputs.pop_front() {
            let now = self.now;
            let core = self.core();
            core.handle(now, input, &mut effects);
            core.assert_invariants();
            for effect in effects.drain() {
                inputs.extend(self.apply(effect));
            }
        }
    }

    fn apply(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Send { seq, ops } => self.send(Statement {
                seq,
                ops: Some(ops),
                limit: 0,
            }),
            Effect::Sweep { seq, limit } => self.send(Statement {
                seq,
                ops: None,
                limit,
            }),
            Effect::Load { slots } if self.slots_unreadable => {
                Some(Input::LoadFailed { asked: slots })
            }
            Effect::Load { slots } => {
                let found = self.ledger.read(&slots);
                let input = Input::SlotsLoaded {
                    asked: slots,
                    found,
                };
                match &mut self.slow_reads {
                    Some(waiting) => {
                        waiting.push_back(input);
                        None
                    }
                    None => Some(input),
                }
            }
            Effect::Lookup { asks, .. } if self.requests_unreadable => {
                Some(Input::LookupFailed { asks })
            }
            Effect::Lookup { asks, keys } => {
                let recorded = self.ledger.recorded(&keys);
                Some(Input::LookedUp { asks, recorded })
            }
            Effect::ReadVerdicts { keys } => Some(self.verdicts(&keys)),
            Effect::Reply { ask, verdict } => {
                let person = self.asks.remove(&ask).expect("answered once");
                self.tell(person, verdict);
                None
            }
            Effect::Reserved { ask } => self.run_move(ask),
            Effect::Seize { expect } => Some(self.seize(expect)),
            Effect::Publish { slots } => {
                self.published
                    .extend(slots.iter().map(|it| (it.slot, it.left)));
                None
            }
            Effect::Alarm { what } => {
                self.alarms.push_back(what);
                None
            }
            Effect::Stop { why } => {
                self.stopped = Some(why);
                None
            }
        }
    }

    fn verdicts(&self, keys: &[RequestKey]) -> Input {
        let recorded = self.ledger.recorded(keys);
        Input::VerdictsRead { recorded }
    }

    fn seize(&mut self, expect: Epoch) -> Input {
        if self.cut_off {
            return Input::LedgerLost;
        }
        self.next_id += 1;
        let floor = self.core().epoch();
        match self.ledger.seize(SHARD, expect, floor, self.next_id + 1) {
            Ok(row) => Input::Reseized {
                epoch: row.epoch,
                prev_epoch: row.prev_epoch,
                prev_seq: row.prev_seq,
            },
            Err(found) => Input::SeizeFailed {
                fenced: Some(found),
            },
        }
    }

    fn run_move(&mut self, ask: AskId) -> Option<Input> {
        let op = self.moves.remove(&ask).expect("moved once");
        let person = self.asks.remove(&ask).expect("answered once");
        let slot = op.to.expect("a move has a target");
        let epoch = self.core().epoch();
        let (verdict, counts) = self.ledger.side(&op, Some((SHARD, epoch))).ok()?;
        let outcome = counts.into_iter().find(|count| count.slot == slot);
        self.tell(person, verdict);
        Some(Input::Unreserve { slot, outcome })
    }

    fn send(&mut self, statement: Statement) -> Option<Input> {
        self.batches += 1;
        if self.slow {
            self.waiting.push_back(statement);
            return None;
        }
        Some(self.run(statement))
    }

    fn run(&mut self, statement: Statement) -> Input {
        let Statement { seq, ops, limit } = statement;
        if self.away > 0 {
            self.away -= 1;
            return failed(seq, ops.is_none(), BatchFailure::NotWritten);
        }
        if self.check_fires > 0 {
            self.check_fires -= 1;
            return failed(seq, ops.is_none(), BatchFailure::Constraint);
        }
        let epoch = self.core().epoch();
        let result = match &ops {
            Some(ops) => {
                let done = self.ledger.batch(SHARD, epoch, seq, ops);
                done.map(|(verdicts, slots)| Input::BatchDone {
                    seq,
                    verdicts,
                    slots,
                })
            }
            None => {
                let done = self.ledger.sweep(SHARD, epoch, seq, limit);
                done.map(|slots| Input::Swept { seq, slots })
            }
        };
        result.unwrap_or_else(|failure| failed(seq, ops.is_none(), failure))
    }

    /// Lets the next statement that waits come to its end.
    pub(crate) fn answer_once(&mut self) -> Result<(), String> {
        let statement = self.waiting.pop_front().ok_or("no statement waits")?;
        let input = self.run(statement);
        self.input(input);
        Ok(())
    }

    pub(crate) fn answer_all(&mut self) {
        self.slow = false;
        while self.answer_once().is_ok() {}
    }

    /// The statement that waits ends without a known outcome; from then on the ledger is quick again.
    pub(crate) fn lose(&mut self, commits: bool) -> Result<(), String> {
        let statement = self.waiting.pop_front().ok_or("no statement waits")?;
        let lost = failed(
            statement.seq,
            statement.ops.is_none(),
            BatchFailure::Unknown,
        );
        if commits {
            self.run(statement);
        }
        self.slow = false;
        self.input(lost);
        Ok(())
    }
}

fn failed(seq: u64, sweep: bool, failure: BatchFailure) -> Input {
    if sweep {
        Input::SweepFailed { seq, failure }
    } else {
        Input::BatchFailed { seq, failure }
    }
}
