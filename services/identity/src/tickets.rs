//! Lists of draw tickets in memory, while somebody asks for them: for downloads and proofs of inclusion.
//!
//! Invariant: only closed buckets are listed, so a list never changes. A proof costs a thousand hashes, however long the
//! list is: the roots of its aligned parts are kept.

use std::sync::{Arc, Mutex, PoisonError};

use domain::place::DrawTicket;
use domain::room::Bytes32;
use domain::room::list::{List, ListBuilder, Proof, node_hash};
use domain::{CampaignId, CohortId, Refusal};
use proto::status::Refused;
use tokio::sync::Semaphore;

use crate::doorkeeper::draw::unavailable;
use crate::people::People;

/// Lists kept; the longest has 160 MB for ten million people.
const KEPT_MAX: usize = 2;
/// Tickets below one kept root; a power of two.
const PART: usize = 1_024;

type Key = (CampaignId, CohortId, u32);
type Kept = Vec<(Key, Arc<TicketList>)>;

/// Lists of closed buckets. Cheap to clone.
#[derive(Clone)]
pub struct Lists {
    people: Arc<dyn People>,
    /// The one asked for last is the last one.
    kept: Arc<Mutex<Kept>>,
    /// One list is read at a time: those who wait for the same one then find it.
    reading: Arc<Semaphore>,
}

/// A closed bucket's list.
pub struct TicketList {
    tickets: Vec<DrawTicket>,
    /// The root of each part of the list.
    parts: Vec<Bytes32>,
}

// === impl Lists ===

impl Lists {
    /// None read yet.
    #[must_use]
    pub fn new(people: Arc<dyn People>) -> Self {
        Self {
            people,
            kept: Arc::default(),
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    /// The list of a closed bucket.
    pub async fn get(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        bucket: u32,
    ) -> Result<Arc<TicketList>, Refused> {
        let key = (campaign.clone(), cohort.clone(), bucket);
        if let Some(list) = self.find(&key) {
            return Ok(list);
        }
        let turn = self.reading.acquire().await;
        let _turn = turn.map_err(|_| Refusal::Unavailable)?;
        if let Some(list) = self.find(&key) {
            return Ok(list);
        }
        let closed = self
            .people
            .closed_buckets(campaign, cohort, bucket, 1)
            .await;
        let closed = closed.map_err(unavailable)?;
        if closed.first().is_none_or(|closed| closed.id != bucket) {
            let problem = "is no closed bucket: its list is not known yet";
            let violation = ("bucket".to_owned(), problem.to_owned());
            return Err(Refused::invalid(vec![violation]));
        }
        let tickets = self.people.tickets(campaign, cohort, bucket).await;
        let list = Arc::new(TicketList::new(tickets.map_err(unavailable)?));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push((key, Arc::clone(&list)));
        Ok(list)
    }

    fn find(&self, key: &Key) -> Option<Arc<TicketList>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == key)?;
        let found = kept.remove(at);
        let list = Arc::clone(&found.1);
        kept.push(found);
        Some(list)
    }
}

// === impl TicketList ===

impl TicketList {
    fn new(tickets: Vec<DrawTicket>) -> Self {
        let parts = tickets.chunks(PART);
        let parts = parts.map(|part| build(ListBuilder::new(), part).root);
        Self {
            parts: parts.collect(),
            tickets,
        }
    }

    /// The tickets, sorted.
    #[must_use]
    pub fn tickets(&self) -> &[DrawTicket] {
        &self.tickets
    }

    /// The proof that a ticket is in the list; `None` if it is not.
    #[must_use]
    pub fn prove(&self, ticket: &DrawTicket) -> Option<Proof> {
        let index = self.tickets.binary_search(ticket).ok()?;
        let at = index / PART;
        let part = self.tickets.chunks(PART).nth(at)?;
        let mut path = build(ListBuilder::proving(*ticket), part).proof?.path;
        climb(&self.parts, at, &mut path);
        Some(Proof {
            index: index as u64,
            path,
        })
    }
}

fn build(mut list: ListBuilder, tickets: &[DrawTicket]) -> List {
    for ticket in tickets {
        // A list out of order was refused when its bucket was closed.
        let _ = list.push(ticket);
    }
    list.finish()
}

/// Adds the other sides from the part `at` up to the root of all; returns that root. As in RFC 6962, the left side is the
/// largest power of two that is smaller than the whole.
fn climb(parts: &[Bytes32], at: usize, path: &mut Vec<Bytes32>) -> Bytes32 {
    let last = match parts {
        [] => return Bytes32::sha256([]),
        [only] => return *only,
        [.., _] => parts.len() - 1,
    };
    let half = 1 << last.ilog2();
    let (left, right) = parts.split_at(half);
    if at < half {
        let (left, right) = (climb(left, at, path), root(right));
        path.push(right);
        node_hash(&left, &right)
    } else {
        let (left, right) = (root(left), climb(right, at - half, path));
        path.push(left);
        node_hash(&left, &right)
    }
}

fn root(parts: &[Bytes32]) -> Bytes32 {
    climb(parts, 0, &mut Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_by_parts_are_those_of_the_whole_list() {
        for size in [1usize, 2, 1_023, 1_024, 1_025, 2_049, 5_000] {
            let tickets = (0..size as u128).map(|n| DrawTicket((n * 7).to_be_bytes()));
            let tickets: Vec<_> = tickets.collect();
            let list = TicketList::new(tickets.clone());
            for at in [0, size / 3, size / 2, size - 1] {
                let whole = build(ListBuilder::proving(tickets[at]), &tickets);
                let proof = list.prove(&tickets[at]).expect("in the list");
                assert_eq!(Some(&proof), whole.proof.as_ref(), "{at} of {size}");
                assert!(proof.holds(&tickets[at], size as u64, &whole.root));
            }
            assert!(list.prove(&DrawTicket([255; 16])).is_none());
        }
    }
}
