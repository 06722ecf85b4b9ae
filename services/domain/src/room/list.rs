//! The published list of draw tickets: sorted, one per person, under a Merkle root as in RFC 6962.
//!
//! Invariant: the root is of a strictly rising list, so no ticket is in it twice. Memory is O(log n): lists of ten
//! million are streamed.

use sha2::{Digest as _, Sha256};

use super::bytes::Bytes32;
use crate::place::DrawTicket;

/// Computes a list's root, and the inclusion proof of one ticket if asked for, in one pass.
#[derive(Clone, Debug, Default)]
pub struct ListBuilder {
    tree: Tree,
    last: Option<DrawTicket>,
    wanted: Option<DrawTicket>,
}

/// A finished list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Its root.
    pub root: Bytes32,
    /// How many tickets it has.
    pub n: u64,
    /// The proof for the ticket asked for, if it is in the list.
    pub proof: Option<Proof>,
}

/// Proof that a ticket is in a list, from the leaf upwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The ticket's index, from 0.
    pub index: u64,
    /// The other side at each node.
    pub path: Vec<Bytes32>,
}

/// The list is not strictly rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list of tickets is not strictly rising at index {index}")]
pub struct Unsorted {
    /// The first ticket not above the one before it.
    pub index: u64,
}

/// A Merkle tree under construction: the perfect subtrees of the leaves so far, largest first.
#[derive(Clone, Debug, Default)]
struct Tree {
    leaves: u64,
    peaks: Vec<Peak>,
    proof: Option<Proof>,
}

#[derive(Clone, Copy, Debug)]
struct Peak {
    hash: Bytes32,
    /// Whether the wanted leaf is below.
    wanted: bool,
}

// === impl ListBuilder ===

impl ListBuilder {
    /// For the root only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For the root and the proof of `ticket`.
    #[must_use]
    pub fn proving(ticket: DrawTicket) -> Self {
        Self {
            wanted: Some(ticket),
            ..Self::default()
        }
    }

    /// Takes the next ticket.
    pub fn push(&mut self, ticket: &DrawTicket) -> Result<(), Unsorted> {
        if self.last.is_some_and(|last| last >= *ticket) {
            return Err(Unsorted {
                index: self.tree.leaves,
            });
        }
        self.last = Some(*ticket);
        self.tree.push(&ticket.0, self.wanted == Some(*ticket));
        Ok(())
    }

    /// The list as it is now.
    #[must_use]
    pub fn finish(self) -> List {
        let n = self.tree.leaves;
        let (root, proof) = self.tree.finish();
        List { root, n, proof }
    }
}

// === impl Tree ===

impl Tree {
    fn push(&mut self, leaf: &[u8], wanted: bool) {
        if wanted {
            self.proof = Some(Proof {
                index: self.leaves,
                path: Vec::new(),
            });
        }
        let mut peak = Peak {
            hash: leaf_hash(leaf),
            wanted,
        };
        // A carry in the binary number of leaves joins two subtrees of one size.
        for _ in 0..self.leaves.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            peak = self.join(left, peak);
        }
        self.peaks.push(peak);
        self.leaves += 1;
    }

    fn join(&mut self, left: Peak, right: Peak) -> Peak {
        let other = match (left.wanted, right.wanted) {
            (true, _) => Some(right.hash),
            (_, true) => Some(left.hash),
            (false, false) => None,
        };
        if let (Some(proof), Some(other)) = (&mut self.proof, other) {
            proof.path.push(other);
        }
        Peak {
            hash: node_hash(&left.hash, &right.hash),
            wanted: left.wanted || right.wanted,
        }
    }

    fn finish(mut self) -> (Bytes32, Option<Proof>) {
        let Some(mut peak) = self.peaks.pop() else {
            return (Bytes32::sha256([]), None);
        };
        while let Some(left) = self.peaks.pop() {
            peak = self.join(left, peak);
        }
        (peak.hash, self.proof)
    }
}

// === impl Proof ===

impl Proof {
    /// Whether `ticket` is at this index of the list of `n` tickets with this root (RFC 9162, 2.1.3.2).
    #[must_use]
    pub fn holds(&self, ticket: &DrawTicket, n: u64, root: &Bytes32) -> bool {
        self.root_of(&ticket.0, n)
            .is_some_and(|computed| computed == *root)
    }

    fn root_of(&self, leaf: &[u8], n: u64) -> Option<Bytes32> {
        let mut last = n.checked_sub(1)?;
        let mut at = self.index;
        if at > last {
            return None;
        }
        let mut hash = leaf_hash(leaf);
        for other in &self.path {
            if last == 0 {
                return None;
            }
            if at & 1 == 1 || at == last {
                hash = node_hash(other, &hash);
                while at & 1 == 0 && at != 0 {
                    at >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node_hash(&hash, other);
            }
            at >>= 1;
            last >>= 1;
        }
        (last == 0).then_some(hash)
    }
}

fn leaf_hash(data: &[u8]) -> Bytes32 {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(data);
    Bytes32(hash.finalize().into())
}

/// The hash of a node over its two sides (RFC 6962, section 2.1).
#[must_use]
pub fn node_hash(left: &Bytes32, right: &Bytes32) -> Bytes32 {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left.0);
    hash.update(right.0);
    Bytes32(hash.finalize().into())
}

#[cfg(test)]
mod tests;
