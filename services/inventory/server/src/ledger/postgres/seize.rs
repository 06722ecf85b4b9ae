//! Taking over a shard.

use domain::Epoch;

use super::PostgresLedger;
use super::session::{Session, Settings};
use super::trouble::{Garbled, NoAnswer, Trouble};
use super::values::{column, signed, signed_32, unsigned};
use super::writer::{PostgresWriter, Statements};
use crate::ledger::{BoxError, Fault, SeizeRequest, Seized};

const SEIZE: &str = "SELECT * FROM seize_v1($1, $2, $3, $4, $5, $6)";

const END_OWNER: &str = "SELECT end_owner_v1($1, $2)";

/// Each waits 300 ms for the row. The old owner's session is ended after the first; the rest is for a successor that
/// is on its way too, or a move just committing.
const ATTEMPTS: u32 = 5;

pub(super) async fn seize(ledger: &PostgresLedger, request: SeizeRequest) -> Result<Seized, Fault> {
    let connector = ledger
        .connector
        .clone()
        .with(Settings::owner(ledger.bounds));
    let session = connector
        .open(ledger.bounds.statement)
        .await
        .map_err(Trouble::unavailable)?;
    // Before anything is taken over: what fails here costs no epoch.
    let statements = Statements::prepare(&session)
        .await
        .map_err(|error| Trouble::unsent(error).unavailable())?;
    let numbers = take(ledger, &session, &request).await?;
    let epoch = Epoch(numbers.epoch);
    let writer = PostgresWriter::new(
        session,
        statements,
        request.shard,
        epoch,
        ledger.bounds.batch,
    );
    Ok(Seized {
        epoch,
        prev_epoch: Epoch(numbers.prev_epoch),
        prev_seq: numbers.prev_seq,
        writer: Box::new(writer),
    })
}

struct Numbers {
    epoch: u64,
    prev_epoch: u64,
    prev_seq: u64,
}

async fn take(
    ledger: &PostgresLedger,
    session: &Session,
    request: &SeizeRequest,
) -> Result<Numbers, Fault> {
    let mut attempt = 1;
    loop {
        let trouble = match try_once(ledger, session, request).await {
            Ok(numbers) => return Ok(numbers),
            Err(trouble) => trouble,
        };
        let blocked = matches!(&trouble, Trouble::Undone(undone)
            if undone.code == tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE);
        if !blocked || attempt == ATTEMPTS {
            return Err(trouble.of_write(request.shard, request.expect));
        }
        attempt += 1;
        end_owner(ledger, session, request)
            .await
            .map_err(|trouble| trouble.of_write(request.shard, request.expect))?;
    }
}

async fn try_once(
    ledger: &PostgresLedger,
    session: &Session,
    request: &SeizeRequest,
) -> Result<Numbers, Trouble> {
    let shard = signed_32(request.shard.0);
    let (expect, floor) = (signed(request.expect.0), signed(request.floor.0));
    let nonce = request.nonce.as_slice();
    let owner = request.owner.as_str();
    let within = ledger.bounds.batch;
    let row = tokio::time::timeout(
        within,
        session.client.query_one(
            SEIZE,
            &[&shard, &expect, &floor, &nonce, &owner, &request.addr],
        ),
    )
    .await
    .map_err(|_| Trouble::Unknown(Box::new(NoAnswer(within))))??;
    let read = |name: &str| -> Result<u64, BoxError> {
        let number: Option<i64> = column(&row, name)?;
        Ok(unsigned(number.ok_or(Garbled("seize"))?))
    };
    let numbers = || -> Result<Numbers, BoxError> {
        Ok(Numbers {
            epoch: read("o_epoch")?,
            prev_epoch: read("o_prev_epoch")?,
            prev_seq: read("o_prev_seq")?,
        })
    };
    numbers().map_err(Trouble::Unknown)
}

async fn end_owner(
    ledger: &PostgresLedger,
    session: &Session,
    request: &SeizeRequest,
) -> Result<(), Trouble> {
    let shard = signed_32(request.shard.0);
    let expect = signed(request.expect.0);
    let within = ledger.bounds.batch;
    let row = tokio::time::timeout(
        within,
        session.client.query_one(END_OWNER, &[&shard, &expect]),
    )
    .await
    .map_err(|_| Trouble::Unreachable(Box::new(NoAnswer(within))))??;
    if row.try_get(0).unwrap_or(false) {
        tracing::info!(
            shard.id = request.shard.0,
            epoch = request.expect.0,
            "ended the session of the owner before, which held the shard's row"
        );
    }
    Ok(())
}
