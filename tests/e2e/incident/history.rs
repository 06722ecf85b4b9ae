//! What the ledger says, now and of what was before.

use std::collections::{BTreeMap, BTreeSet};

use system_tests::postgres::Session;
use uuid::Uuid;

/// People of the incident who at this moment have no booking, or not exactly one appointment.
pub(super) async fn wrong_now(session: &Session) -> anyhow::Result<(i64, i64)> {
    let sql = "
        SELECT count(*) FILTER (WHERE n.active = 0), count(*) FILTER (WHERE n.active > 1
            OR (n.active = 1) <> (c.state = 'BOOKED' AND c.booking = l.booking))
        FROM incident_line l
        JOIN claim c ON c.person = l.person AND c.campaign = l.campaign
        CROSS JOIN LATERAL (
            SELECT count(*) AS active FROM booking b WHERE b.booking = l.booking AND b.state = 'BOOKED') n
        WHERE l.plan = 0 AND l.incident = (SELECT incident FROM incident WHERE clinic = 'broken')";
    let row = session.query_one(sql, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Replays what the ledger says happened to each booking of the incident; answers those given up, and the moves.
pub(super) async fn history(session: &Session) -> anyhow::Result<(BTreeSet<Uuid>, usize)> {
    let sql = "
        SELECT e.booking, e.version, e.kind, e.slot_id, e.xid::text
        FROM event e
        WHERE e.booking IN (SELECT l.booking FROM incident_line l WHERE l.plan = 0
            AND l.incident = (SELECT incident FROM incident WHERE clinic = 'broken'))
        ORDER BY e.booking, e.version, e.event_id";
    type Step = (String, BTreeSet<i64>, BTreeSet<String>);
    let mut steps: BTreeMap<(Uuid, i64), Step> = BTreeMap::new();
    for row in session.query(sql, &[]).await? {
        let key = (row.get(0), row.get(1));
        let kind: String = row.get(2);
        let step = steps
            .entry(key)
            .or_insert_with(|| (kind.clone(), BTreeSet::new(), BTreeSet::new()));
        anyhow::ensure!(step.0 == kind, "{key:?} is {kind} and {}", step.0);
        step.1.insert(row.get(3));
        step.2.insert(row.get(4));
    }
    let (mut active, mut gone, mut moves) = (BTreeMap::<Uuid, i64>::new(), BTreeSet::new(), 0);
    for ((booking, version), (kind, slots, transactions)) in steps {
        anyhow::ensure!(
            transactions.len() == 1,
            "{booking} changed in two transactions at {version}"
        );
        let slots: Vec<i64> = slots.into_iter().collect();
        match (
            kind.as_str(),
            slots.as_slice(),
            active.get(&booking).copied(),
        ) {
            ("BOOKED", [slot], None) => drop(active.insert(booking, *slot)),
            ("MOVED", [one, other], Some(old)) if old == *one || old == *other => {
                active.insert(booking, if old == *one { *other } else { *one });
                moves += 1;
            }
            ("CANCELLED", [slot], Some(old)) if old == *slot => {
                active.remove(&booking);
                gone.insert(booking);
            }
            other => anyhow::bail!("{booking} at version {version}: {other:?}"),
        }
    }
    // What the history comes to is what stands.
    let rows = session
        .query(
            "SELECT booking, slot_id FROM booking WHERE state = 'BOOKED'",
            &[],
        )
        .await?;
    let stands: BTreeMap<Uuid, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    anyhow::ensure!(stands.len() == rows.len(), "a booking has two appointments");
    for (booking, slot) in active {
        anyhow::ensure!(
            stands.get(&booking) == Some(&slot),
            "{booking} stands elsewhere"
        );
    }
    Ok((gone, moves))
}

pub(super) async fn no_slot_is_wrong(session: &Session) -> anyhow::Result<()> {
    let sql = "SELECT count(*) FROM slot s WHERE s.booked > s.capacity OR s.booked <> (
        SELECT count(*) FROM booking b WHERE b.slot_id = s.slot_id AND b.state IN ('HELD', 'BOOKED'))";
    let wrong: i64 = session.query_one(sql, &[]).await?.get(0);
    anyhow::ensure!(wrong == 0, "{wrong} slots are oversold or count wrong");
    let sql = "SELECT count(*) FROM (SELECT 1 FROM booking WHERE state = 'BOOKED'
        GROUP BY campaign, person HAVING count(*) > 1) twice";
    let twice: i64 = session.query_one(sql, &[]).await?.get(0);
    anyhow::ensure!(twice == 0, "{twice} people are booked twice");
    Ok(())
}
