//! The ledger's clock: the machine's wall clock, except that it never steps back.

use std::sync::atomic::{AtomicI64, Ordering};

use domain::Timestamp;
use runtime::Clock;

/// Decides what has expired. A hold that was over once is over for good.
#[derive(Debug)]
pub(super) struct LedgerClock {
    machine: Clock,
    latest_micros: AtomicI64,
}

impl LedgerClock {
    pub(super) const fn new(machine: Clock) -> Self {
        Self {
            machine,
            latest_micros: AtomicI64::new(i64::MIN),
        }
    }

    /// The machine's time, or the latest one given out where that lies after it.
    pub(super) fn now(&self) -> Timestamp {
        let micros = self.machine.wall().as_micros();
        let before = self.latest_micros.fetch_max(micros, Ordering::SeqCst);
        Timestamp::from_micros(before.max(micros))
    }
}
