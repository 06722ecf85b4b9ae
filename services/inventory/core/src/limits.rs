//! Bounds of one shard's owner, each with the reason for its number.

use std::time::Duration;

/// Bounds of one shard's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ops in one statement: one commit of a few milliseconds shared by as many callers as arrive in it.
    pub batch_ops_max: usize,
    /// Asks held in all stages together: two seconds of work at 4,000 a second; beyond, the waiting room is better.
    pub queue_ops_max: usize,
    /// Behind more than one full statement nobody is let in who would wait longer than this: an answer after its caller
    /// went away is work for nothing, and a queue of such answers leaves room for no others.
    pub queue_wait_max: Duration,
    /// A slot that memory calls full or closed is read again at most this often; above zero.
    pub reread_after: Duration,
    /// How often a statement that wrote nothing is sent before its callers hear of it; at least 1.
    pub send_attempts_max: u32,
    /// Slots in one load.
    pub load_slots_max: usize,
    /// Loads under way at once; what comes meanwhile is loaded together.
    pub loads_max: usize,
    /// Request ids in one lookup.
    pub lookup_keys_max: usize,
    /// Expired holds given back by one sweep: as long a statement as a full batch.
    pub sweep_holds_max: u32,
    /// Acknowledged ops remembered in case the ledger goes back in time: more than a second of full batches.
    pub ring_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_ops_max: 512,
            queue_ops_max: 8_192,
            queue_wait_max: Duration::from_secs(1),
            reread_after: Duration::from_secs(1),
            send_attempts_max: 5,
            load_slots_max: 512,
            loads_max: 4,
            lookup_keys_max: 512,
            sweep_holds_max: 512,
            ring_ops_max: 4_096,
        }
    }
}

impl Limits {
    /// A bound of zero would stop the shard without a word.
    pub(crate) fn assert_positive(&self) {
        assert!(
            self.batch_ops_max > 0
                && self.queue_ops_max > 0
                && !self.reread_after.is_zero()
                && self.send_attempts_max > 0
                && self.load_slots_max > 0
                && self.loads_max > 0
                && self.lookup_keys_max > 0
                && self.sweep_holds_max > 0,
            "every limit must be above zero: {self:?}"
        );
    }
}
