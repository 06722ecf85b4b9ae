//! Leftovers: who asked to be called, rounds, and their places.
//!
//! Matching and drawing happen here, by the same pure functions as in SQLite; the database writes a list only while
//! there is none.

use std::time::SystemTime;

use domain::leftover::{Place, RoundKey, Spot, ticket_text};
use domain::place::DrawTicket;
use domain::room::Bytes32;
use domain::{CampaignId, ClinicId, Epoch, PersonId, RoundId, booking_code};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresLedger;
use super::terminal::{NO_SHARD, refused};
use super::trouble::{Garbled, TERMINAL_REFUSED, Trouble};
use super::values::{column, signed, timestamp, unreadable, unsigned, unsigned_32};
use crate::ledger::leftovers::{Candidate, DueDraw, OFFERS_MAX, ROUNDS_MAX, place_state};
use crate::ledger::{
    BoxError, Called, Fault, LeftoverAnswer, LeftoverChange, LeftoverOp, LeftoverVerdict, Offer,
    PassedOn, Round,
};

const JOIN: &str = "SELECT * FROM leftover_join_v1($1, $2, $3, $4, $5, $6, $7)";
const LEAVE: &str = "SELECT * FROM leftover_leave_v1($1, $2, $3, $4, $5)";
const ANSWER: &str = "SELECT * FROM leftover_answer_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const DRAW: &str = "SELECT leftover_draw_v1($1, $2, $3, $4) AS drawn";
const PASS_ON: &str = "SELECT * FROM leftover_pass_on_v1($1)";

pub(super) async fn change(
    ledger: &PostgresLedger,
    op: &LeftoverOp,
) -> Result<LeftoverVerdict, Fault> {
    match &op.change {
        LeftoverChange::Join(wish) => {
            let wish = serde_json::to_string(wish).map_err(|error| unreadable(error.into()))?;
            let rest: [&(dyn ToSql + Sync); 2] = [&op.ticket.0.as_slice(), &wish];
            written(ledger, op, JOIN, &rest).await
        }
        LeftoverChange::Leave => written(ledger, op, LEAVE, &[]).await,
        LeftoverChange::Answer {
            clinic,
            round,
            accept,
            booking,
        } => {
            let code = booking_code::of(*booking);
            let rest: [&(dyn ToSql + Sync); 5] = [
                &clinic.as_str(),
                &signed(round.0),
                accept,
                &booking.0,
                &code,
            ];
            written(ledger, op, ANSWER, &rest).await
        }
    }
}

/// Runs a function whose first five parameters are campaign, person, request, hash and serial.
async fn written(
    ledger: &PostgresLedger,
    op: &LeftoverOp,
    sql: &str,
    rest: &[&(dyn ToSql + Sync)],
) -> Result<LeftoverVerdict, Fault> {
    let campaign = op.claimant.campaign.as_str();
    let (person, hash) = (
        op.claimant.person.as_bytes().as_slice(),
        op.body_hash.0.as_slice(),
    );
    let serial = signed(op.claimant.serial.0);
    let mut params: Vec<&(dyn ToSql + Sync)> =
        vec![&campaign, &person, &op.request.0, &hash, &serial];
    params.extend_from_slice(rest);
    let rows = match ledger.ask(sql, &params).await {
        Ok(rows) => rows,
        Err(Trouble::Undone(undone)) if undone.code.code() == TERMINAL_REFUSED => {
            let why = refused(&undone.message, undone.detail()).map_err(unreadable)?;
            return Ok(LeftoverVerdict::Refused(why));
        }
        Err(trouble) => return Err(trouble.of_write(NO_SHARD, Epoch(0))),
    };
    // It was committed: what cannot be understood is to be asked for again.
    let read = || -> Result<LeftoverVerdict, BoxError> {
        let row = rows.first().ok_or(Garbled("leftover"))?;
        let answer: LeftoverAnswer = serde_json::from_str(column(row, "o_answer")?)?;
        Ok(if column(row, "o_repeated")? {
            LeftoverVerdict::Exists(answer)
        } else {
            LeftoverVerdict::Done(answer)
        })
    };
    read().map_err(|source| Fault::Unknown {
        shard: NO_SHARD,
        source,
    })
}

pub(super) async fn called(
    ledger: &PostgresLedger,
    campaign: &CampaignId,
    person: PersonId,
) -> Result<Called, Fault> {
    let who: [&(dyn ToSql + Sync); 2] = [&campaign.as_str(), &person.as_bytes().as_slice()];
    let wish = "SELECT wish FROM leftover_wish WHERE campaign = $1 AND person = $2";
    let wish = ledger.read(wish, &who).await?;
    let offers = "SELECT leftover_round_v1(r)::text AS round, p.ticket, p.state, p.offered_at, p.deadline, p.ended_at
        FROM leftover_place p JOIN leftover_round r ON r.round = p.round
        WHERE p.campaign = $1 AND p.person = $2 AND p.offered_at IS NOT NULL ORDER BY p.round DESC LIMIT $3";
    let offers = ledger.read(offers, &[who[0], who[1], &OFFERS_MAX]).await?;
    let read = || -> Result<Called, BoxError> {
        let wish = wish.first().map(|row| column::<&str>(row, "wish"));
        Ok(Called {
            wish: match wish {
                Some(text) => Some(serde_json::from_str(text?)?),
                None => None,
            },
            offers: offers
                .iter()
                .map(|row| {
                    Ok(Offer {
                        round: round(row)?,
                        place: place(row)?,
                    })
                })
                .collect::<Result<_, BoxError>>()?,
        })
    };
    read().map_err(unreadable)
}

pub(super) async fn rounds(
    ledger: &PostgresLedger,
    clinic: &ClinicId,
    named: Option<RoundId>,
) -> Result<Vec<Round>, Fault> {
    let sql = "SELECT leftover_round_v1(r)::text AS round FROM leftover_round r
        WHERE r.clinic = $1 AND ($2::bigint IS NULL OR r.round = $2) ORDER BY r.round DESC LIMIT $3";
    let named = named.map(|round| signed(round.0));
    let rows = ledger
        .read(sql, &[&clinic.as_str(), &named, &ROUNDS_MAX])
        .await?;
    let rows: Result<_, BoxError> = rows.iter().map(round).collect();
    rows.map_err(unreadable)
}

pub(super) async fn places(ledger: &PostgresLedger, round: RoundId) -> Result<Vec<Place>, Fault> {
    let sql = "SELECT ticket, state, offered_at, deadline, ended_at FROM leftover_place
        WHERE round = $1 ORDER BY rank";
    let rows = ledger.read(sql, &[&signed(round.0)]).await?;
    let rows: Result<_, BoxError> = rows.iter().map(place).collect();
    rows.map_err(unreadable)
}

/// Nearly always nothing is due, and then nothing is written.
pub(super) async fn pass_on(ledger: &PostgresLedger) -> Result<PassedOn, Fault> {
    let mut all = PassedOn::default();
    let due = include_str!("../sql/postgres_leftovers_due.sql");
    for row in ledger.read(due, &[]).await? {
        let (round, draws) = (|| -> Result<(i64, bool), BoxError> {
            Ok((column(&row, "round")?, column(&row, "draws")?))
        })()
        .map_err(unreadable)?;
        if draws {
            all.drawn += u64::from(fix_list(ledger, round).await?);
        }
        let rows = ledger.read(PASS_ON, &[&round]).await?;
        let read = || -> Result<PassedOn, BoxError> {
            let row = rows.first().ok_or(Garbled("leftover_pass_on"))?;
            let count = |name| column::<i64>(row, name).map(unsigned);
            Ok(PassedOn {
                drawn: 0,
                offered: count("o_offered")?,
                expired: count("o_expired")?,
                left: count("o_left")?,
                passed: count("o_passed")?,
                closed: count("o_closed")?,
            })
        };
        all += read().map_err(unreadable)?;
    }
    Ok(all)
}

/// Fixes a round's list, unless somebody else did meanwhile.
async fn fix_list(ledger: &PostgresLedger, round: i64) -> Result<bool, Fault> {
    let sql = "SELECT r.round, r.clinic, r.campaign, r.vaccine, r.seed, r.from_minute, r.to_minute, r.draws_at,
            c.district, c.latitude, c.longitude
        FROM leftover_round r JOIN clinic c ON c.clinic = r.clinic WHERE r.round = $1 AND r.state = 'ANNOUNCED'";
    let rows = ledger.read(sql, &[&round]).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let due = due_draw(row).map_err(unreadable)?;
    let draws_at: SystemTime = column(row, "draws_at").map_err(unreadable)?;
    let asked =
        "SELECT person, ticket, wish FROM leftover_wish WHERE campaign = $1 AND joined_at < $2
        ORDER BY joined_at, person";
    let asked = ledger
        .read(asked, &[&due.key.campaign.as_str(), &draws_at])
        .await?;
    let asked: Result<Vec<Candidate>, BoxError> = asked.iter().map(candidate).collect();
    let list = due.fix(asked.map_err(unreadable)?);
    let people: Vec<&[u8]> = list
        .order
        .iter()
        .map(|(person, _)| person.as_bytes().as_slice())
        .collect();
    let tickets: Vec<&[u8]> = list.order.iter().map(|(_, t)| t.0.as_slice()).collect();
    let root = list.root.0.as_slice();
    let rows = ledger
        .read(DRAW, &[&round, &root, &people, &tickets])
        .await?;
    let drawn = rows.first().map(|row| column(row, "drawn"));
    drawn.unwrap_or(Ok(false)).map_err(unreadable)
}

fn due_draw(row: &Row) -> Result<DueDraw, BoxError> {
    Ok(DueDraw {
        key: RoundKey {
            campaign: column::<&str>(row, "campaign")?.parse()?,
            clinic: column::<&str>(row, "clinic")?.parse()?,
            round: RoundId(unsigned(column(row, "round")?)),
        },
        seed: Bytes32(column::<&[u8]>(row, "seed")?.try_into()?),
        spot: Spot {
            district: column(row, "district")?,
            latitude: column(row, "latitude")?,
            longitude: column(row, "longitude")?,
            vaccine: column::<&str>(row, "vaccine")?.parse()?,
            from_minute: unsigned_32(column(row, "from_minute")?),
            to_minute: unsigned_32(column(row, "to_minute")?),
        },
    })
}

fn candidate(row: &Row) -> Result<Candidate, BoxError> {
    Ok(Candidate {
        person: PersonId::from_bytes(column::<&[u8]>(row, "person")?.try_into()?),
        ticket: ticket(row)?,
        wish: serde_json::from_str(column(row, "wish")?)?,
    })
}

fn ticket(row: &Row) -> Result<DrawTicket, BoxError> {
    Ok(DrawTicket(column::<&[u8]>(row, "ticket")?.try_into()?))
}

fn round(row: &Row) -> Result<Round, BoxError> {
    Ok(serde_json::from_str(column(row, "round")?)?)
}

fn place(row: &Row) -> Result<Place, BoxError> {
    let time = |name| column::<Option<SystemTime>>(row, name).map(|at| at.map(timestamp));
    Ok(Place {
        ticket: ticket_text(&ticket(row)?),
        state: place_state(column(row, "state")?).ok_or(Garbled("place.state"))?,
        offered_at: time("offered_at")?,
        deadline: time("deadline")?,
        ended_at: time("ended_at")?,
    })
}
