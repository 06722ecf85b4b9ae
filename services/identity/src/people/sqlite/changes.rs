//! Changes of region, one transaction each.

use domain::Timestamp;
use domain::region_change::{Departure, Receipt};
use rusqlite::{Connection, params};

use super::super::{BoxError, Change, Corrupt, Placed};
use super::begin;
use super::rows::select;

/// Notes the change if the permit is the one in force and nothing is noted yet; gives the person's place after that.
pub(super) fn begin_change(
    db: &mut Connection,
    change: &Change,
    now: Timestamp,
) -> Result<Option<Placed>, BoxError> {
    let txn = begin(db)?;
    if change.from != change.to {
        txn.prepare_cached(
            "INSERT INTO region_change (campaign, person, serial, from_region, to_region, began_at)
             SELECT campaign, person, serial, region, ?5, ?6 FROM place
             WHERE campaign = ?1 AND person = ?2 AND serial = ?3 AND region = ?4
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            change.campaign.as_str(),
            change.person.as_bytes().as_slice(),
            i64::try_from(change.serial.0)?,
            change.from.as_str(),
            change.to.as_str(),
            now.as_micros(),
        ])?;
    }
    let found = select(&txn, &change.campaign, change.person)?;
    txn.commit()?;
    Ok(found)
}

/// Ends the change by what the receipt says; `None` = it is not about the newest change.
pub(super) fn complete_change(
    db: &mut Connection,
    receipt: &Receipt,
    now: Timestamp,
) -> Result<Option<Placed>, BoxError> {
    let (left_for, outcome) = match &receipt.departure {
        Departure::Left { to } => (Some(to.as_str()), "LEFT"),
        Departure::Stayed => (None, "STAYED"),
    };
    let (campaign, person) = (
        receipt.campaign.as_str(),
        receipt.person.as_bytes().as_slice(),
    );
    let (serial, from) = (i64::try_from(receipt.serial.0)?, receipt.region.as_str());
    let txn = begin(db)?;
    let ended = txn
        .prepare_cached(
            "UPDATE region_change SET outcome = ?6, to_region = coalesce(?5, to_region), ended_at = ?7
             WHERE campaign = ?1 AND person = ?2 AND serial = ?3 AND from_region = ?4 AND outcome IS NULL",
        )?
        .execute(params![
            campaign,
            person,
            serial,
            from,
            left_for,
            outcome,
            now.as_micros()
        ])?;
    let good = if ended == 1 {
        let moved = txn
            .prepare_cached(
                "UPDATE place SET region = coalesce(?5, region), serial = ?3 + 1
                 WHERE campaign = ?1 AND person = ?2 AND serial = ?3 AND region = ?4",
            )?
            .execute(params![campaign, person, serial, from, left_for])?;
        if moved != 1 {
            let what = "a change of region that is not about the place in force";
            return Err(Corrupt { what }.into());
        }
        true
    } else {
        txn.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM region_change c
             JOIN place p ON p.campaign = c.campaign AND p.person = c.person AND p.serial = c.serial + 1
             WHERE c.campaign = ?1 AND c.person = ?2 AND c.serial = ?3 AND c.from_region = ?4
                 AND c.outcome = ?6 AND (?5 IS NULL OR c.to_region = ?5))",
        )?
        .query_row(
            params![campaign, person, serial, from, left_for, outcome],
            |row| row.get(0),
        )?
    };
    let found = if good {
        select(&txn, &receipt.campaign, receipt.person)?
    } else {
        None
    };
    txn.commit()?;
    Ok(found)
}
