//! What goes into a shard and what comes out of it.

use domain::command::BodyHash;
use domain::{CampaignId, Epoch, Op, PersonId, Recorded, RequestId, SlotId, SlotState, Verdict};

/// Names one ask until its answer; unique while the shard lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What a request is recorded under.
pub type RequestKey = (CampaignId, PersonId, RequestId);

/// A slot's counts after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCount {
    /// The slot.
    pub slot: SlotId,
    /// People it can take.
    pub capacity: u32,
    /// People it has, holds included.
    pub booked: u32,
    /// Takes new people.
    pub open: bool,
}

/// What readers may know of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLeft {
    /// The slot.
    pub slot: SlotId,
    /// People it can take.
    pub capacity: u32,
    /// Places left by what is committed; 0 when closed.
    pub left: u32,
    /// Takes new people.
    pub open: bool,
}

/// How a statement failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFailure {
    /// Another epoch or batch number is in force: it did not happen and never will.
    Fenced {
        /// The epoch that the ledger has; below ours means that the ledger went back in time.
        found: Epoch,
    },
    /// It may have happened, or the writer is lost.
    Unknown,
    /// Nothing was written and the number was not used; the shell pauses before it sends the next statement.
    NotWritten,
    /// The ledger's capacity check fired; nothing was written.
    Constraint,
}

/// What happened around the shard.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants a change; permit and admission were checked by the shell.
    Ask {
        /// Names the ask.
        ask: AskId,
        /// What is wanted.
        op: Op,
    },
    /// Answer to [`Effect::Load`], read after that effect was issued.
    SlotsLoaded {
        /// The slots of the effect.
        asked: Vec<SlotId>,
        /// Those of them that exist.
        found: Vec<SlotState>,
    },
    /// [`Effect::Load`] could not be done.
    LoadFailed {
        /// The slots of the effect.
        asked: Vec<SlotId>,
    },
    /// Answer to [`Effect::Send`]: committed.
    BatchDone {
        /// The number of the statement.
        seq: u64,
        /// One for each op, in their order.
        verdicts: Vec<Verdict>,
        /// Every slot that an op named or an expired hold gave back to.
        slots: Vec<SlotCount>,
    },
    /// [`Effect::Send`] did not end in a commit that we know of.
    BatchFailed {
        /// The number of the statement.
        seq: u64,
        /// How it failed.
        failure: BatchFailure,
    },
    /// Answer to [`Effect::Seize`].
    Reseized {
        /// The epoch in force from now on.
        epoch: Epoch,
        /// The epoch before.
        prev_epoch: Epoch,
        /// The last statement committed under it.
        prev_seq: u64,
    },
    /// [`Effect::Seize`] did not succeed yet, or never will.
    SeizeFailed {
        /// The epoch that the ledger has, where it is not the expected one. `None`: the shell tries again by itself.
        fenced: Option<Epoch>,
    },
    /// The ledger was out of reach for longer than clinics may wait for it; others may reach it.
    LedgerLost,
    /// Answer to [`Effect::ReadVerdicts`], in its order; the shell repeats the read until it has one.
    VerdictsRead {
        /// What was recorded.
        recorded: Vec<Option<(BodyHash, Recorded)>>,
    },
    /// Answer to [`Effect::Lookup`].
    LookedUp {
        /// The asks of the effect.
        asks: Vec<AskId>,
        /// What was recorded, in their order.
        recorded: Vec<Option<(BodyHash, Recorded)>>,
    },
    /// [`Effect::Lookup`] could not be done.
    LookupFailed {
        /// The asks of the effect.
        asks: Vec<AskId>,
    },
    /// The ledger's state of slots at *some* moment: tail of the outbox, or a catalogue. Only ever makes memory more
    /// pessimistic; what it says to the contrary is read again with [`Effect::Load`].
    SlotsChanged {
        /// The slots.
        slots: Vec<SlotState>,
    },
    /// Answer to [`Effect::Sweep`]: committed.
    Swept {
        /// The number of the statement.
        seq: u64,
        /// The slots that got places back.
        slots: Vec<SlotCount>,
    },
    /// [`Effect::Sweep`] did not end in a commit that we know of.
    SweepFailed {
        /// The number of the statement.
        seq: u64,
        /// How it failed.
        failure: BatchFailure,
    },
    /// A move into this shard wants a place kept. Answered by [`Effect::Reserved`] or by a refusal; a refusal is
    /// decided from memory, so the shell looks for a recorded answer of the move first.
    Reserve {
        /// Names the ask.
        ask: AskId,
        /// The slot.
        slot: SlotId,
    },
    /// The move is over.
    Unreserve {
        /// The slot that was reserved.
        slot: SlotId,
        /// The slot's counts where the move committed; `None` where it is known that nothing was written.
        outcome: Option<SlotCount>,
    },
    /// Time has passed; wanted about once a second, so that what waits to be read again is read without a caller.
    Tick,
    /// There are expired holds: one sweep is wanted.
    SweepDue,
    /// Admit nobody more, finish, stop.
    Drain,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read slots.
    Load {
        /// The slots, each once.
        slots: Vec<SlotId>,
    },
    /// Run a batch. At most one `Send` or `Sweep` is under way. The same number again means: the first wrote nothing.
    Send {
        /// Its number in this epoch.
        seq: u64,
        /// The ops, at most one of a person.
        ops: Vec<Op>,
    },
    /// Give back expired holds.
    Sweep {
        /// Its number in this epoch.
        seq: u64,
        /// At most so many.
        limit: u32,
    },
    /// Look for recorded answers before these asks are refused.
    Lookup {
        /// The asks, to be given back.
        asks: Vec<AskId>,
        /// Their keys, in the same order.
        keys: Vec<RequestKey>,
    },
    /// Answer an ask; the only answer it gets.
    Reply {
        /// The ask.
        ask: AskId,
        /// The answer.
        verdict: Verdict,
    },
    /// A place is kept: run the move under the epoch in force now.
    Reserved {
        /// The ask of the move.
        ask: AskId,
    },
    /// Open a new writer: the outcome of a statement is not known, or the writer cannot be trusted.
    Seize {
        /// Only where the ledger has this epoch; the floor is at least our own epoch.
        expect: Epoch,
    },
    /// Read what a committed batch recorded.
    ReadVerdicts {
        /// Its requests.
        keys: Vec<RequestKey>,
    },
    /// Slots as readers may know them; may name slots of other shards, where an expired hold gave places back.
    Publish {
        /// The slots.
        slots: Vec<SlotLeft>,
    },
    /// Something that must not happen has happened; a person must look.
    Alarm {
        /// What.
        what: Alarm,
    },
    /// The shard is over; every ask was answered before.
    Stop {
        /// Why.
        why: Stop,
    },
}

/// Something that must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The ledger's capacity check fired: it decided otherwise than it wrote.
    Constraint {
        /// Ops in the statement.
        ops: usize,
    },
    /// The ledger went back in time.
    Regressed {
        /// Our epoch.
        held: Epoch,
        /// Our last acknowledged statement.
        committed: u64,
        /// The epoch that the ledger has.
        found: Epoch,
        /// Its last statement, where it is known.
        found_seq: Option<u64>,
    },
    /// Acknowledged ops were applied again after the ledger went back in time.
    Reapplied {
        /// Found again or done again.
        kept: usize,
        /// Refused by the ledger: their holders were told something that is no longer so.
        lost: usize,
    },
}

/// Why a shard is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Another owner has taken over.
    Fenced,
    /// Asked to, and done.
    Drained,
    /// The ledger went back in time, and another owner took over before it could be brought forward.
    Regressed,
    /// The ledger cannot be reached from here.
    CutOff,
}

/// A buffer of effects, reused from input to input.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
}

// === impl Effects ===

impl Effects {
    /// Takes the effects out, in their order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.list.drain(..)
    }

    /// The effects, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Effect> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }
}

impl<'a> IntoIterator for &'a Effects {
    type Item = &'a Effect;
    type IntoIter = std::slice::Iter<'a, Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
