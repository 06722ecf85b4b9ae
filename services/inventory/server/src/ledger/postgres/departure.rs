//! People who leave, and people who stay after all: one function call each, decided under the lock of the claim.

use domain::region_change::Departure;
use domain::{Claimant, Epoch, Refusal};
use tokio_postgres::Row;

use super::PostgresLedger;
use super::side::{NO_SHARD, side_slots};
use super::trouble::{Garbled, Trouble};
use super::values::{column, signed};
use crate::ledger::{BoxError, DepartureAnswer, Fault, SurrenderOp};

const SURRENDER: &str = "SELECT * FROM surrender_v1($1, $2, $3, $4, $5)";

const RESTAMP: &str = "SELECT NULL::text AS o_refusal, o_to FROM restamp_v1($1, $2, $3)";

pub(super) async fn surrender(
    ledger: &PostgresLedger,
    op: &SurrenderOp,
) -> Result<DepartureAnswer, Fault> {
    let who = &op.claimant;
    let rows = ledger
        .ask(
            SURRENDER,
            &[
                &who.campaign.as_str(),
                &who.person.as_bytes().as_slice(),
                &signed(who.serial.0),
                &op.to.as_str(),
                &op.give_up_booking,
            ],
        )
        .await
        .map_err(of_write)?;
    let answer = || {
        let row = rows.first().ok_or(Garbled("surrender"))?;
        Ok(DepartureAnswer {
            decided: decided(row)?,
            slots: side_slots(row)?,
        })
    };
    answer().map_err(unknown)
}

pub(super) async fn restamp(
    ledger: &PostgresLedger,
    who: &Claimant,
) -> Result<DepartureAnswer, Fault> {
    let (campaign, person) = (who.campaign.as_str(), who.person.as_bytes().as_slice());
    let rows = ledger
        .ask(RESTAMP, &[&campaign, &person, &signed(who.serial.0)])
        .await
        .map_err(of_write)?;
    let answer = || {
        let row = rows.first().ok_or(Garbled("restamp"))?;
        Ok(DepartureAnswer {
            decided: decided(row)?,
            slots: Vec::new(),
        })
    };
    answer().map_err(unknown)
}

fn decided(row: &Row) -> Result<Result<Departure, Refusal>, BoxError> {
    if let Some(code) = column::<Option<&str>>(row, "o_refusal")? {
        return Ok(Err(Refusal::from_code(code).ok_or(Garbled("refusal"))?));
    }
    Ok(Ok(match column::<Option<&str>>(row, "o_to")? {
        Some(to) => Departure::Left { to: to.parse()? },
        None => Departure::Stayed,
    }))
}

fn of_write(trouble: Trouble) -> Fault {
    trouble.of_write(NO_SHARD, Epoch(0))
}

/// It was committed: what cannot be understood is to be asked for again.
fn unknown(source: BoxError) -> Fault {
    Fault::Unknown {
        shard: NO_SHARD,
        source,
    }
}
