//! Which instance should decide which shard: rendezvous hashing, computed by everybody from the same members.
//!
//! Pure. Invariant: when a member comes or goes, only shards that it wins or held change their place.

use domain::{InstanceId, RegionId, ShardId};
use sha2::{Digest as _, Sha256};

/// An inventory process as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub instance: InstanceId,
    /// Where it listens, `host:port`.
    pub addr: String,
    /// It takes no new shards and gives away those it has.
    pub draining: bool,
}

/// The members that may decide `shard`, the best first. Draining members come last: better a draining owner than none.
#[must_use]
pub fn ranking<'a>(region: &RegionId, shard: ShardId, members: &'a [Member]) -> Vec<&'a Member> {
    let mut ranked: Vec<_> = members
        .iter()
        .map(|member| (weight(region, shard, &member.instance), member))
        .collect();
    ranked.sort_by(|(weight_a, a), (weight_b, b)| {
        a.draining
            .cmp(&b.draining)
            .then(weight_b.cmp(weight_a))
            .then(a.instance.cmp(&b.instance))
    });
    ranked.into_iter().map(|(_, member)| member).collect()
}

fn weight(region: &RegionId, shard: ShardId, instance: &InstanceId) -> u64 {
    let digest = Sha256::new()
        .chain_update(region.as_str())
        .chain_update([0])
        .chain_update(shard.0.to_be_bytes())
        .chain_update(instance.as_str())
        .finalize();
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Vec<Member> {
        names
            .iter()
            .map(|name| Member {
                instance: name.parse().expect("slug"),
                addr: format!("{name}:1"),
                draining: false,
            })
            .collect()
    }

    fn owner(shard: u32, members: &[Member]) -> String {
        let region = "seoul".parse().expect("slug");
        ranking(&region, ShardId(shard), members)[0]
            .instance
            .to_string()
    }

    #[test]
    fn a_newcomer_takes_only_what_it_wins() {
        let (two, three) = (members(&["a", "b"]), members(&["a", "b", "c"]));
        for shard in 0..200 {
            let after = owner(shard, &three);
            assert!(
                after == "c" || after == owner(shard, &two),
                "shard {shard} moved between old members"
            );
        }
    }

    #[test]
    fn shards_spread_over_members() {
        let three = members(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            let mine = (0..300)
                .filter(|shard| owner(*shard, &three) == name)
                .count();
            assert!((60..140).contains(&mine), "{name} has {mine} of 300");
        }
    }

    #[test]
    fn a_draining_member_is_the_last_resort() {
        let mut three = members(&["a", "b", "c"]);
        three[0].draining = true;
        assert!((0..100).all(|shard| owner(shard, &three) != "a"));
        assert_eq!(owner(0, &three[..1]), "a");
    }
}
