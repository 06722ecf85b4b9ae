//! Whom to ask: the owner of a clinic's shard, or any member of the region where no shard decides.

use std::sync::Arc;

use domain::{ClinicId, Epoch, Refusal, ShardId};
use proto::status::Refused;

use super::routes::{Known, RegionRoutes};
use super::table::Addr;
use crate::availability::Region;

/// Whom to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) addr: Addr,
    /// The shard and the epoch of its owner, where a shard decides.
    pub(super) shard: Option<(ShardId, Epoch)>,
}

/// Nobody can be asked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotYet;

/// The owner of a clinic's shard, or that there is no such clinic.
pub(super) fn owner_of(
    clinic: &ClinicId,
    region: Option<&Region>,
    routes: &RegionRoutes,
) -> Result<Result<Target, NotYet>, Refused> {
    let Some(region) = region else {
        return Ok(Err(NotYet));
    };
    let Some(shard) = region.shard_of(clinic) else {
        // Only a gateway that has heard every shard can say that there is no such clinic.
        let complete = region.heard_all(routes.known().owned.as_ref());
        return if complete {
            Err(Refusal::ClinicUnknown.into())
        } else {
            Ok(Err(NotYet))
        };
    };
    let route = routes.route(shard).ok_or(NotYet);
    Ok(route.map(|route| Target {
        addr: route.addr,
        shard: Some((shard, route.epoch)),
    }))
}

/// A member of the region, in turns: one that stays, if any does; without the key space, an owner last heard of.
pub(super) fn any_member(known: &Known, at: usize) -> Result<Target, NotYet> {
    let of = |draining: bool| -> Vec<&Addr> {
        let members = known
            .members
            .iter()
            .filter(|member| member.draining == draining);
        members.map(|member| &member.addr).collect()
    };
    let choice = [of(false), of(true), known.table.addrs().collect()];
    let from = choice
        .into_iter()
        .find(|addrs| !addrs.is_empty())
        .ok_or(NotYet)?;
    Ok(Target {
        addr: Arc::clone(from[at % from.len()]),
        shard: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::routes::Member;
    use super::*;

    fn known(members: &[(&str, bool)]) -> Known {
        let member = |(addr, draining): &(&str, bool)| Member {
            addr: Addr::from(*addr),
            draining: *draining,
        };
        let mut known = Known {
            members: members.iter().map(member).collect(),
            ..Known::default()
        };
        known
            .table
            .learn(ShardId(0), Epoch(1), &Addr::from("owner:1"));
        known
    }

    #[test]
    fn members_that_stay_come_before_those_that_go_and_those_before_owners_heard_of() {
        for at in 0..8 {
            let of = |members: &[(&str, bool)]| any_member(&known(members), at).expect("one").addr;
            assert_eq!(of(&[("a:1", true), ("b:1", false)]).as_ref(), "b:1");
            assert_eq!(of(&[("a:1", true)]).as_ref(), "a:1");
            assert_eq!(of(&[]).as_ref(), "owner:1");
        }
        assert_eq!(any_member(&Known::default(), 0), Err(NotYet));
    }

    #[test]
    fn tries_go_round() {
        let known = known(&[("a:1", false), ("b:1", false), ("c:1", false)]);
        let asked: Vec<_> = (5..8)
            .map(|at| any_member(&known, at).expect("one").addr)
            .collect();
        assert_eq!(
            asked
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            3
        );
    }
}
