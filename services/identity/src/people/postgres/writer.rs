//! One session that stamps groups, one after the other, and comes back when it was lost.

use std::time::Duration;

use runtime::fields;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::group::{Ask, GROUP_MAX, Group};
use super::super::{BoxError, Columns, Corrupt, Placed, Stamp};
use super::session::{Connector, StampSession, Warned};
use crate::metrics::Metrics;

/// The caller's whole deadline; whoever waited longer is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Ends when every handle of the store is gone.
pub(super) async fn run(connector: Connector, mut queue: mpsc::Receiver<Ask>, metrics: Metrics) {
    let mut session = None;
    let mut failing = false;
    let mut asks = Vec::with_capacity(GROUP_MAX);
    while queue.recv_many(&mut asks, GROUP_MAX).await > 0 {
        let group = Group::new(std::mem::take(&mut asks));
        let outcome = write(&connector, &mut session, group.stamps()).await;
        match &outcome {
            Ok(_) => failing = false,
            Err(error) => {
                // The session is not used again: its state is not known. Nothing is repeated here; callers do that.
                session = None;
                if !failing {
                    let error = fields::chain(error.as_ref());
                    tracing::warn!(
                        error,
                        retry = "caller",
                        "a group of people was not acknowledged"
                    );
                }
                failing = true;
            }
        }
        group.answer(outcome, &metrics);
    }
}

async fn write(
    connector: &Connector,
    session: &mut Option<StampSession>,
    stamps: &[Stamp],
) -> Result<Vec<Placed>, BoxError> {
    // A session that died while nobody asked costs nobody an answer.
    let open = match session
        .take()
        .filter(|open| !open.session.client.is_closed())
    {
        Some(open) => session.insert(open),
        None => session.insert(connector.stamp_session().await?),
    };
    let placed = tokio::time::timeout(WRITE_WITHIN, stamp(open, stamps)).await??;
    if open.session.take_warning() {
        return Err(Warned.into());
    }
    Ok(placed)
}

async fn stamp(open: &StampSession, stamps: &[Stamp]) -> Result<Vec<Placed>, BoxError> {
    let campaigns: Vec<&str> = stamps.iter().map(|stamp| stamp.campaign.as_str()).collect();
    let people: Vec<&[u8]> = stamps
        .iter()
        .map(|stamp| stamp.person.as_bytes().as_slice())
        .collect();
    let cohorts: Vec<&str> = stamps.iter().map(|stamp| stamp.cohort.as_str()).collect();
    let regions: Vec<&str> = stamps.iter().map(|stamp| stamp.region.as_str()).collect();
    let tickets: Vec<&[u8]> = stamps
        .iter()
        .map(|stamp| stamp.ticket.0.as_slice())
        .collect();
    let callers: Vec<&str> = stamps.iter().map(|stamp| stamp.caller.as_str()).collect();
    let client = &open.session.client;
    let stamped: [&(dyn ToSql + Sync); 6] =
        [&campaigns, &people, &cohorts, &regions, &tickets, &callers];
    let whose: [&(dyn ToSql + Sync); 2] = [&campaigns, &people];
    // The second is sent while the first is answered. A change that ends in between makes the permit an old one, which
    // its region knows.
    let (rows, moving) = tokio::try_join!(
        client.query(&open.stamp, &stamped),
        client.query(&open.moving, &whose),
    )?;
    let mut answers = vec![None; stamps.len()];
    for row in rows {
        let columns = Columns {
            cohort: row.try_get(1)?,
            region: row.try_get(2)?,
            serial: row.try_get(3)?,
            bucket: i64::from(row.try_get::<_, i32>(4)?),
            ticket: row.try_get(5)?,
            moving_to: None,
        };
        *answer_of(&mut answers, &row)? = Some(columns.placed()?);
    }
    for row in moving {
        if let Some(placed) = answer_of(&mut answers, &row)? {
            let to: &str = row.try_get(1)?;
            placed.moving_to = Some(to.parse().map_err(|_| Corrupt { what: "moving_to" })?);
        }
    }
    // A missing one makes the list shorter, and the whole group fails: nobody gets another's place.
    Ok(answers.into_iter().flatten().collect())
}

/// The answer that a row's order, from 1, belongs to.
fn answer_of<'a>(
    answers: &'a mut [Option<Placed>],
    row: &Row,
) -> Result<&'a mut Option<Placed>, BoxError> {
    let at = usize::try_from(row.try_get::<_, i64>(0)?)
        .ok()
        .and_then(|at| at.checked_sub(1));
    let answer = at.and_then(|at| answers.get_mut(at));
    Ok(answer.ok_or(Corrupt { what: "order" })?)
}
