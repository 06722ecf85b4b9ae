//! The session of a shard's owner.
//!
//! Invariant: one statement at a time; after an outcome that is not known the session is closed and never used again.

use std::time::Duration;

use async_trait::async_trait;
use domain::{Epoch, Op, ShardId};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::batch::Columns;
use super::session::Session;
use super::trouble::{Garbled, NoAnswer, Trouble};
use super::values::{signed, signed_32, slot_count};
use crate::ledger::{BatchAnswer, BoxError, Fault, SlotCount, Writer};

const BATCH: &str = "SELECT * FROM batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
    $14, $15, $16, $17, $18, $19, $20)";

const SWEEP: &str = "SELECT * FROM sweep_v1($1, $2, $3, $4)";

/// What a writer asks, prepared before the shard is taken over.
pub(super) struct Statements {
    batch: Statement,
    sweep: Statement,
}

impl Statements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            batch: session.client.prepare(BATCH).await?,
            sweep: session.client.prepare(SWEEP).await?,
        })
    }
}

pub(super) struct PostgresWriter {
    /// `None` after an unknown outcome.
    session: Option<Session>,
    statements: Statements,
    shard: ShardId,
    epoch: Epoch,
    within: Duration,
}

impl PostgresWriter {
    pub(super) fn new(
        session: Session,
        statements: Statements,
        shard: ShardId,
        epoch: Epoch,
        within: Duration,
    ) -> Self {
        Self {
            session: Some(session),
            statements,
            shard,
            epoch,
            within,
        }
    }

    async fn run(
        &mut self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let Some(session) = &self.session else {
            return Err(self.unknown("the session was given up".into()));
        };
        let answer = tokio::time::timeout(self.within, session.client.query(statement, params));
        let trouble = match answer.await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => Trouble::from(error),
            Err(_) => Trouble::Unknown(Box::new(NoAnswer(self.within))),
        };
        if matches!(trouble, Trouble::Unknown(_)) {
            self.session = None;
        }
        Err(trouble.of_write(self.shard, self.epoch))
    }

    fn unknown(&self, source: BoxError) -> Fault {
        Fault::Unknown {
            shard: self.shard,
            source,
        }
    }

    /// It was committed, but cannot be understood: the request rows will tell.
    fn garbled(&mut self, source: BoxError) -> Fault {
        self.session = None;
        self.unknown(source)
    }
}

#[async_trait]
impl Writer for PostgresWriter {
    async fn batch(&mut self, seq: u64, ops: &[Op]) -> Result<BatchAnswer, Fault> {
        let columns = Columns::new(ops);
        let shard = signed_32(self.shard.0);
        let (epoch, seq) = (signed(self.epoch.0), signed(seq));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&shard, &epoch, &seq];
        params.extend(columns.params());
        let statement = self.statements.batch.clone();
        let rows = self.run(&statement, &params).await?;
        let answer = match rows.first() {
            Some(row) => columns.answer(ops, row),
            None => Err(Garbled("batch").into()),
        };
        answer.map_err(|source| self.garbled(source))
    }

    async fn sweep(&mut self, seq: u64, limit: u32) -> Result<Vec<SlotCount>, Fault> {
        let shard = signed_32(self.shard.0);
        let (epoch, seq, limit) = (signed(self.epoch.0), signed(seq), signed_32(limit));
        let statement = self.statements.sweep.clone();
        let rows = self
            .run(&statement, &[&shard, &epoch, &seq, &limit])
            .await?;
        let counts: Result<Vec<SlotCount>, BoxError> = rows.iter().map(slot_count).collect();
        counts.map_err(|source| self.garbled(source))
    }
}
