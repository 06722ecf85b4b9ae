//! Against the published test vectors of certificate transparency, and against the definition.

use proptest::prelude::*;

use super::*;

/// The leaves of the reference implementation's tests.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

/// Roots over the first 0, 1 … 8 of them.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn leaf(at: usize) -> Vec<u8> {
    hex::decode(LEAVES[at]).expect("hex")
}

fn tree(leaves: usize, wanted: Option<usize>) -> (Bytes32, Option<Proof>) {
    let mut tree = Tree::default();
    for at in 0..leaves {
        tree.push(&leaf(at), wanted == Some(at));
    }
    tree.finish()
}

#[test]
fn roots_are_those_of_the_reference() {
    for (leaves, root) in ROOTS.iter().enumerate() {
        assert_eq!(tree(leaves, None).0.to_string(), *root, "{leaves} leaves");
    }
}

#[test]
fn proofs_are_those_of_the_reference() {
    // (leaf, size, path): inclusion proofs of the reference implementation's tests, leaves counted from 0.
    let known: [(usize, usize, &[&str]); 4] = [
        (0, 1, &[]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            3,
            &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
        ),
    ];
    for (at, size, path) in known {
        let (root, proof) = tree(size, Some(at));
        let proof = proof.expect("asked for");
        let hashes: Vec<String> = proof.path.iter().map(ToString::to_string).collect();
        assert_eq!(hashes, path, "leaf {at} of {size}");
        assert_eq!(proof.root_of(&leaf(at), size as u64), Some(root));
    }
}

/// The definition: split at the largest power of two below the size.
fn by_definition(leaves: &[DrawTicket]) -> Bytes32 {
    match leaves {
        [] => Bytes32::sha256([]),
        [one] => leaf_hash(&one.0),
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&by_definition(left), &by_definition(right))
        }
    }
}

fn ticket(n: u128) -> DrawTicket {
    DrawTicket(n.to_be_bytes())
}

proptest! {
    #[test]
    fn any_list_has_the_defined_root_and_provable_tickets(n in 1usize..300, at in 0usize..300, other in 0usize..300) {
        let tickets: Vec<DrawTicket> = (0..n).map(|n| ticket(n as u128 * 3)).collect();
        let at = at % n;
        let mut list = ListBuilder::proving(tickets[at]);
        for ticket in &tickets {
            list.push(ticket).expect("rising");
        }
        let list = list.finish();
        prop_assert_eq!(list.root, by_definition(&tickets));
        prop_assert_eq!(list.n, n as u64);
        let proof = list.proof.expect("in the list");
        prop_assert!(proof.holds(&tickets[at], list.n, &list.root));
        let wrong = Proof { index: (other % n) as u64, ..proof.clone() };
        prop_assert_eq!(wrong.holds(&tickets[at], list.n, &list.root), other % n == at);
        prop_assert!(!proof.holds(&ticket(1), list.n, &list.root));
        let longer = Proof { path: [&proof.path[..], &[list.root]].concat(), ..proof.clone() };
        prop_assert!(!longer.holds(&tickets[at], list.n, &list.root));
        if let Some((_, rest)) = proof.path.split_first() {
            let shorter = Proof { path: rest.to_vec(), ..proof };
            prop_assert!(!shorter.holds(&tickets[at], list.n, &list.root));
        }
    }
}

#[test]
fn a_ticket_twice_or_out_of_order_is_refused() {
    let mut list = ListBuilder::new();
    list.push(&ticket(5)).expect("the first");
    assert_eq!(list.push(&ticket(5)), Err(Unsorted { index: 1 }));
    assert_eq!(list.push(&ticket(4)), Err(Unsorted { index: 1 }));
    list.push(&ticket(6)).expect("rising");
    assert_eq!(list.finish().n, 2);
}

#[test]
fn who_is_not_in_the_list_gets_no_proof() {
    let mut list = ListBuilder::proving(ticket(2));
    list.push(&ticket(1)).expect("rising");
    list.push(&ticket(3)).expect("rising");
    assert_eq!(list.finish().proof, None);
}
