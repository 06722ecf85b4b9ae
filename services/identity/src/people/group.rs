//! Groups of asks that are committed together.
//!
//! Invariant: every ask is answered exactly once, also when its group failed; a person is in a group at most once.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};

use super::{BoxError, Fault, Placed, Stamp};
use crate::metrics::Metrics;

/// One commit costs about a millisecond, one person some microseconds: larger groups add more wait than they save.
pub(crate) const GROUP_MAX: usize = 512;

/// Two seconds of work at 8,000 permits/s; whoever comes beyond that does better to return later.
pub(crate) const QUEUE_DEPTH_MAX: usize = 16_384;
const _: () = assert!(GROUP_MAX * 8 <= QUEUE_DEPTH_MAX);

/// An ask with the one who waits for it.
pub(crate) struct Ask {
    pub(crate) stamp: Stamp,
    pub(crate) reply: oneshot::Sender<Result<Placed, Fault>>,
}

/// Asks in the order of the people's keys, each person once.
pub(crate) struct Group {
    stamps: Vec<Stamp>,
    /// For each stamp, everybody who waits for it.
    waiting: Vec<Vec<oneshot::Sender<Result<Placed, Fault>>>>,
}

/// Why a whole group failed, told to everybody in it.
#[derive(Debug, thiserror::Error)]
#[error("the group was not written: {0}")]
struct GroupFailed(String);

/// The store answered for fewer people than were asked for.
#[derive(Debug, thiserror::Error)]
#[error("a person of the group has no place")]
pub(crate) struct NoPlace;

// === impl Ask ===

/// Queues an ask and waits for its answer; a full queue sheds.
pub(crate) async fn ask(queue: &mpsc::Sender<Ask>, stamp: Stamp) -> Result<Placed, Fault> {
    let (reply, answer) = oneshot::channel();
    queue
        .try_send(Ask { stamp, reply })
        .map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Fault::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Fault::unavailable("the writer has stopped"),
        })?;
    answer
        .await
        .map_err(|_| Fault::unavailable("the writer has stopped"))?
}

// === impl Group ===

impl Group {
    pub(crate) fn new(asks: Vec<Ask>) -> Self {
        let mut at = HashMap::with_capacity(asks.len());
        let mut stamps = Vec::with_capacity(asks.len());
        let mut waiting: Vec<Vec<_>> = Vec::with_capacity(asks.len());
        for Ask { stamp, reply } in asks {
            let key = (stamp.campaign.clone(), stamp.person);
            let index = *at.entry(key).or_insert_with(|| {
                stamps.push(stamp);
                waiting.push(Vec::with_capacity(1));
                stamps.len() - 1
            });
            waiting[index].push(reply);
        }
        Self { stamps, waiting }
    }

    pub(crate) fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// Tells everybody. A caller that has gone away needs no answer: failed sends are ignored.
    pub(crate) fn answer(self, outcome: Result<Vec<Placed>, BoxError>, metrics: &Metrics) {
        metrics.group_size.observe(self.stamps.len() as f64);
        let outcome = match outcome {
            Ok(placed) if placed.len() == self.stamps.len() => Ok(placed),
            Ok(_) => Err(NoPlace.into()),
            Err(cause) => Err(cause),
        };
        match outcome {
            Ok(all) => {
                for (placed, waiting) in all.into_iter().zip(self.waiting) {
                    for reply in waiting {
                        let _ = reply.send(Ok(placed.clone()));
                    }
                }
            }
            Err(cause) => {
                let told = runtime::fields::chain(cause.as_ref());
                for reply in self.waiting.into_iter().flatten() {
                    let _ = reply.send(Err(Fault::unavailable(GroupFailed(told.clone()))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::PersonId;
    use domain::Serial;
    use domain::place::{DrawTicket, Place};

    use super::*;

    fn asked(person: u8) -> (Ask, oneshot::Receiver<Result<Placed, Fault>>) {
        let (reply, answer) = oneshot::channel();
        let stamp = Stamp {
            campaign: "c".parse().expect("slug"),
            person: PersonId::from_bytes([person; 16]),
            cohort: "h".parse().expect("slug"),
            region: "seoul".parse().expect("slug"),
            ticket: DrawTicket([person; 16]),
            caller: "app".parse().expect("slug"),
        };
        (Ask { stamp, reply }, answer)
    }

    #[test]
    fn a_person_who_asks_twice_is_written_once_and_answered_twice() {
        let ((a, answer_a), (b, answer_b), (c, answer_c)) = (asked(1), asked(2), asked(1));
        let group = Group::new(vec![a, b, c]);
        assert_eq!(group.stamps().len(), 2);
        let placed = |person| Placed {
            cohort: "h".parse().expect("slug"),
            region: "seoul".parse().expect("slug"),
            serial: Serial(1),
            place: Place {
                bucket: 0,
                ticket: DrawTicket([person; 16]),
            },
            moving_to: None,
        };
        group.answer(Ok(vec![placed(1), placed(2)]), &Metrics::unregistered());
        let got = |mut answer: oneshot::Receiver<Result<Placed, Fault>>| {
            answer.try_recv().expect("answered").expect("placed")
        };
        assert_eq!(
            (got(answer_a), got(answer_b), got(answer_c)),
            (placed(1), placed(2), placed(1))
        );
    }

    #[test]
    fn a_failed_or_short_group_fails_for_everybody() {
        let (a, mut answer) = asked(1);
        Group::new(vec![a]).answer(Err("the disk is full".into()), &Metrics::unregistered());
        assert!(matches!(
            answer.try_recv(),
            Ok(Err(Fault::Unavailable { .. }))
        ));
        let (a, mut answer) = asked(1);
        Group::new(vec![a]).answer(Ok(Vec::new()), &Metrics::unregistered());
        assert!(matches!(
            answer.try_recv(),
            Ok(Err(Fault::Unavailable { .. }))
        ));
    }
}
