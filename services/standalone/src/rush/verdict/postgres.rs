//! Facts from a region's database, in one read-only snapshot.

use std::collections::HashMap;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, NoTls, Row, Transaction};

use super::facts::{Appointment, Claim, Counts, Facts, Place, Request, sixteen};

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the client; a verdict is no service"
    )]
    tokio::spawn(async move {
        // Its end is seen by the client's calls.
        let _ = connection.await;
    });
    Ok(client)
}

/// Streams rows: a whole country's requests need not lie in memory twice.
async fn each(
    transaction: &Transaction<'_>,
    sql: &str,
    campaign: Option<&str>,
    mut take: impl FnMut(&Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let parameters = campaign
        .iter()
        .map(|campaign| campaign as &(dyn ToSql + Sync));
    let rows = transaction
        .query_raw(sql, parameters.collect::<Vec<_>>())
        .await
        .context(sql.to_owned())?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        take(&row)?;
    }
    Ok(())
}

fn id(row: &Row, at: usize) -> anyhow::Result<[u8; 16]> {
    sixteen(row.try_get::<_, &[u8]>(at)?)
}

fn number(row: &Row, at: usize) -> anyhow::Result<u64> {
    Ok(u64::try_from(row.try_get::<_, i64>(at)?)?)
}

pub(super) async fn facts(url: &str, campaign: &str) -> anyhow::Result<Facts> {
    let mut client = connect(url).await?;
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let mut facts = Facts::default();
    let sql = "SELECT slot_id::bigint, capacity::bigint, booked::bigint FROM slot";
    each(&snapshot, sql, None, |row| {
        let counts = Counts {
            capacity: number(row, 1)?,
            booked: number(row, 2)?,
        };
        facts.slots.insert(row.try_get(0)?, counts);
        Ok(())
    })
    .await?;
    let sql = "SELECT uuid_send(booking), slot_id::bigint, state::text, person, campaign = $1 FROM booking";
    each(&snapshot, sql, Some(campaign), |row| {
        facts.appointments.push(Appointment {
            booking: id(row, 0)?,
            slot: row.try_get(1)?,
            state: row.try_get(2)?,
            person: id(row, 3)?,
            ours: row.try_get(4)?,
        });
        Ok(())
    })
    .await?;
    let sql = "SELECT person, state::text, serial::bigint, version::bigint, uuid_send(booking) \
               FROM claim WHERE campaign = $1";
    each(&snapshot, sql, Some(campaign), |row| {
        let booking = row
            .try_get::<_, Option<&[u8]>>(4)?
            .map(sixteen)
            .transpose()?;
        let (serial, version) = (number(row, 2)?, number(row, 3)?);
        facts.claims.insert(
            id(row, 0)?,
            Claim {
                state: row.try_get(1)?,
                serial,
                version,
                booking,
            },
        );
        Ok(())
    })
    .await?;
    let sql = "SELECT person, uuid_send(request_id), verdict::text, uuid_send(booking), first_slot::bigint, \
               coalesce(second_slot, 0)::bigint, version_after::bigint FROM request WHERE campaign = $1";
    each(&snapshot, sql, Some(campaign), |row| {
        let request = Request {
            verdict: row.try_get(2)?,
            booking: id(row, 3)?,
            slots: [number(row, 4)?, number(row, 5)?],
            version: number(row, 6)?,
        };
        facts.requests.insert((id(row, 0)?, id(row, 1)?), request);
        Ok(())
    })
    .await?;
    taken(&snapshot, campaign, &mut facts).await?;
    Ok(facts)
}

/// When each person first held or booked.
async fn taken(
    snapshot: &Transaction<'_>,
    campaign: &str,
    facts: &mut Facts,
) -> anyhow::Result<()> {
    let sql = "SELECT person, (extract(epoch FROM min(at)) * 1000000)::bigint FROM event \
               WHERE campaign = $1 AND kind IN ('HELD', 'BOOKED') GROUP BY person";
    each(snapshot, sql, Some(campaign), |row| {
        facts.taken.insert(id(row, 0)?, row.try_get(1)?);
        Ok(())
    })
    .await
}

pub(super) async fn places(url: &str, campaign: &str) -> anyhow::Result<HashMap<[u8; 16], Place>> {
    let mut client = connect(url).await?;
    let snapshot = client.build_transaction().read_only(true).start().await?;
    let mut places = HashMap::new();
    let sql = "SELECT person, region::text, serial::bigint, bucket::bigint, ticket FROM place WHERE campaign = $1";
    each(&snapshot, sql, Some(campaign), |row| {
        let place = Place {
            region: row.try_get(1)?,
            serial: number(row, 2)?,
            bucket: u32::try_from(number(row, 3)?)?,
            ticket: id(row, 4)?,
        };
        places.insert(id(row, 0)?, place);
        Ok(())
    })
    .await?;
    Ok(places)
}
