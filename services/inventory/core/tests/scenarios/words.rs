//! The words of the tables.

use std::collections::VecDeque;
use std::time::Duration;

use domain::command::BodyHash;
use domain::{
    Action, BookingId, ClaimVersion, Claimant, Epoch, Op, PersonId, Refusal, RequestId, Serial,
    ShardId, SlotId, SlotPair, SlotState, Timestamp, Verdict,
};
use inventory_core::{Alarm, Input, Stop};

use crate::ledger::SideOp;
use crate::stage::{SHARD, Stage};

type Outcome = Result<(), String>;

/// One line of a table.
pub(crate) fn perform(stage: &mut Stage, line: &str) -> Outcome {
    if let Some((what, expected)) = line.split_once("->") {
        let words: Vec<&str> = what.split_whitespace().collect();
        let person = ask(stage, &words)?;
        return hears(stage, person, expected.trim());
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["slot", slot, ref rest @ ..] => slot_line(stage, slot.trim_end_matches(':'), rest),
        ["limit", "queue", count] => {
            stage.limits.queue_ops_max = number(count)?;
            Ok(())
        }
        ["limit", "batch", count] => {
            stage.limits.batch_ops_max = number(count)?;
            Ok(())
        }
        ["at", time] => {
            stage.pass(Timestamp::from_secs(number(time.trim_end_matches('s'))?));
            Ok(())
        }
        [person, "hears", ref expected @ ..] => {
            hears(stage, person_id(person)?, &expected.join(" "))
        }
        ["the", ..] | ["another" | "a", ..] | ["remember", ..] => world(stage, line),
        ["slots" | "requests" | "reads", ..] | ["sweep"] | ["drain"] => world(stage, line),
        _ => expect(stage, &words),
    }
}

fn world(stage: &mut Stage, line: &str) -> Outcome {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["the", "ledger", "is", "slow"] => stage.slow = true,
        ["the", "ledger", "answers"] => stage.answer_all(),
        ["the", "ledger", "answers", "once"] => return stage.answer_once(),
        ["the", "statement", "is", "lost"] => return stage.lose(false),
        ["the", "statement", "commits", "unheard"] => return stage.lose(true),
        ["the", "ledger", "is", "away", "for", count, "statements"] => stage.away = number(count)?,
        ["the", "check", "fires", "for", count, "statements"] => stage.check_fires = number(count)?,
        ["reads", "are", "slow"] => stage.slow_reads = Some(VecDeque::new()),
        ["reads", "arrive"] => {
            for input in stage.slow_reads.take().into_iter().flatten() {
                stage.input(input);
            }
        }
        ["slots", "cannot", "be", "read"] => stage.slots_unreadable = true,
        ["slots", "can", "be", "read"] => stage.slots_unreadable = false,
        ["requests", "cannot", "be", "read"] => stage.requests_unreadable = true,
        ["requests", "can", "be", "read"] => stage.requests_unreadable = false,
        ["the", "ledger", "is", "out", "of", "reach"] => stage.cut_off = true,
        ["the", "owner", "gives", "the", "ledger", "up"] => stage.input(Input::LedgerLost),
        ["another", "owner", "takes", "over"] => {
            let epoch = stage.ledger.shards[&SHARD].epoch;
            let taken = stage.ledger.seize(SHARD, epoch, Epoch(0), u64::MAX);
            taken.map_err(|found| format!("the ledger has {found}"))?;
        }
        ["remember", "the", "ledger"] => stage.remembered = Some(stage.ledger.clone()),
        ["the", "ledger", "goes", "back"] => {
            stage.ledger = stage.remembered.take().ok_or("nothing was remembered")?;
        }
        ["the", "owner", "hears", "of", slot] => {
            let slots = stage.ledger.read(&[slot_id(slot)?]);
            stage.input(Input::SlotsChanged { slots });
        }
        ["a", "second", "passes"] => {
            let later = stage.now.plus(Duration::from_secs(1));
            stage.pass(later);
            stage.input(Input::Tick);
        }
        ["sweep"] => stage.input(Input::SweepDue),
        ["drain"] => stage.input(Input::Drain),
        ["the", "ledger", "has", count, "in", slot] => {
            let state = stage.ledger.slots.get(&slot_id(slot)?);
            return same(state.map(|it| it.booked), Some(number(count)?));
        }
        _ => return Err(format!("no such words: {line}")),
    }
    Ok(())
}

fn expect(stage: &mut Stage, words: &[&str]) -> Outcome {
    match *words {
        [slot, "has", count, "left"] => {
            let memory = stage.core().memory(slot_id(slot)?);
            same(memory.map(|it| it.left), Some(number(count)?))
        }
        [slot, "is", "unknown"] => same(stage.core().memory(slot_id(slot)?), None),
        ["readers", "see", count, "left", "in", slot] => {
            let seen = stage.published.get(&slot_id(slot)?).copied();
            same(seen, Some(number(count)?))
        }
        ["running"] => same(stage.stopped, None),
        ["stopped", "drained"] => same(stage.stopped, Some(Stop::Drained)),
        ["stopped", "fenced"] => same(stage.stopped, Some(Stop::Fenced)),
        ["stopped", "cut", "off"] => same(stage.stopped, Some(Stop::CutOff)),
        ["stopped", "regressed"] => same(stage.stopped, Some(Stop::Regressed)),
        ["batches", count] => same(stage.batches, number(count)?),
        ["epoch", "is", count] => same(stage.core().epoch(), Epoch(number(count)?)),
        ["alarm", ref what @ ..] => {
            let alarm = stage.alarms.pop_front();
            let matches = match (what, &alarm) {
                (["constraint"], Some(Alarm::Constraint { .. })) => true,
                (["regressed"], Some(Alarm::Regressed { .. })) => true,
                (["reapplied", kept, lost], Some(alarm)) => {
                    let (kept, lost) = (number(kept)?, number(lost)?);
                    *alarm == Alarm::Reapplied { kept, lost }
                }
                _ => false,
            };
            matches.then_some(()).ok_or(format!("heard {alarm:?}"))
        }
        _ => Err(format!("no such words: {words:?}")),
    }
}

fn slot_line(stage: &mut Stage, slot: &str, rest: &[&str]) -> Outcome {
    let id = slot_id(slot)?;
    let known = stage.ledger.slots.get(&id).cloned();
    let mut state = known.unwrap_or_else(|| SlotState {
        slot: id,
        shard: SHARD,
        clinic: "c1".parse().expect("a slug"),
        vaccine: "az".parse().expect("a slug"),
        dose: 1,
        starts_at: Timestamp::from_secs(1_000_000),
        day: 0,
        capacity: 1,
        booked: 0,
        open: true,
    });
    for phrase in rest.join(" ").split(", ") {
        match phrase.split_whitespace().collect::<Vec<_>>()[..] {
            ["capacity", count] => state.capacity = number(count)?,
            ["booked", count] => state.booked = number(count)?,
            ["dose", dose] => state.dose = number(dose)?,
            ["day", day] => state.day = number(day)?,
            ["vaccine", name] => state.vaccine = name.parse().map_err(|_| "no slug")?,
            ["clinic", name] => state.clinic = name.parse().map_err(|_| "no slug")?,
            ["shard", shard] => state.shard = ShardId(number(shard)?),
            ["starts", time] => {
                state.starts_at = Timestamp::from_secs(number(time.trim_end_matches('s'))?);
            }
            ["closed"] => state.open = false,
            ["open"] => state.open = true,
            _ => return Err(format!("no such words: {phrase}")),
        }
    }
    stage.ledger.slots.insert(id, state);
    Ok(())
}

fn ask(stage: &mut Stage, words: &[&str]) -> Result<PersonId, String> {
    let [who, verb, ref rest @ ..] = *words else {
        return Err("who does what?".to_owned());
    };
    let person = person_id(who)?;
    stage.next_id += 1;
    let fresh = request_id(stage.next_id);
    let request = match option(rest, "as") {
        Some(name) => *stage.requests.entry(name.to_owned()).or_insert(fresh),
        None => fresh,
    };
    let known = stage.people.entry(person).or_default();
    let claim_version = match option(rest, "seeing") {
        Some(version) => ClaimVersion(number(version)?),
        None => known.version,
    };
    let booking = known.booking.unwrap_or(BookingId::from_bytes([0; 16]));
    let what = rest.first().copied().unwrap_or_default();
    let body_hash = body_hash(&format!("{verb} {what}"));
    let campaign = "kr-2021".parse().map_err(|_| "no slug")?;
    if verb == "moves" || verb == "cancels" {
        let to = option(rest, "to").map(slot_id).transpose()?;
        let op = SideOp {
            person: (campaign, person),
            request,
            hash: body_hash,
            claim_version,
            booking,
            to,
        };
        match to {
            Some(slot) => stage.ask_to_move(person, op, slot),
            None => stage.cancel(person, &op),
        }
        return Ok(person);
    }
    let op = Op {
        claimant: Claimant {
            campaign,
            person,
            serial: Serial(number(option(rest, "serial").unwrap_or("2"))?),
        },
        request,
        body_hash,
        claim_version,
        action: action(
            verb,
            rest,
            booking,
            BookingId::from_bytes(*fresh.as_bytes()),
        )?,
        rules: std::sync::Arc::clone(&stage.rules),
    };
    stage.ask(person, op);
    Ok(person)
}

fn action(verb: &str, rest: &[&str], own: BookingId, new: BookingId) -> Result<Action, String> {
    let slots = || slot_pair(rest.first().copied().unwrap_or_default());
    Ok(match verb {
        "books" => Action::Book {
            slots: slots()?,
            booking: new,
        },
        "holds" => {
            let secs = option(rest, "for").unwrap_or("60s");
            Action::Hold {
                slots: slots()?,
                booking: new,
                ttl: Duration::from_secs(number(secs.trim_end_matches('s'))?),
            }
        }
        "confirms" => Action::Confirm { hold: own },
        "releases" => Action::Release { hold: own },
        _ => return Err(format!("no such verb: {verb}")),
    })
}

/// The word behind `name`.
fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}

fn hears(stage: &mut Stage, person: PersonId, expected: &str) -> Outcome {
    let heard = stage.people.entry(person).or_default().unheard.pop_front();
    let heard = match heard {
        None => "waits".to_owned(),
        Some(Verdict::Done(answer)) => answer.done.code().to_lowercase(),
        Some(Verdict::Exists(answer)) => format!("again {}", answer.done.code().to_lowercase()),
        Some(Verdict::Refused { refusal, .. }) => refusal.code().to_owned(),
    };
    let shouted = expected.to_uppercase() == expected;
    if shouted && Refusal::from_code(expected).is_none() {
        return Err(format!("there is no refusal {expected}"));
    }
    same(heard.as_str(), expected)
}

fn same<T: PartialEq + std::fmt::Debug>(is: T, expected: T) -> Outcome {
    if is == expected {
        Ok(())
    } else {
        Err(format!("it is {is:?}, not {expected:?}"))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("no number: {text}"))
}

fn person_id(text: &str) -> Result<PersonId, String> {
    let id = number(text.strip_prefix('p').ok_or(format!("no person: {text}"))?)?;
    Ok(PersonId::from_bytes([id; 16]))
}

fn slot_id(text: &str) -> Result<SlotId, String> {
    let id = number(text.strip_prefix('s').ok_or(format!("no slot: {text}"))?)?;
    Ok(SlotId(id))
}

fn slot_pair(text: &str) -> Result<SlotPair, String> {
    match text.split_once('+') {
        None => Ok(SlotPair::one(slot_id(text)?)),
        Some((first, second)) => Ok(SlotPair::two(slot_id(first)?, slot_id(second)?)),
    }
}

fn request_id(count: u64) -> RequestId {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&count.to_be_bytes());
    RequestId::from_bytes(bytes)
}

/// Two bodies of these tables never share the first 16 bytes.
fn body_hash(text: &str) -> BodyHash {
    let mut bytes = [b' '; 16];
    for (byte, letter) in bytes.iter_mut().zip(text.bytes()) {
        *byte = letter;
    }
    BodyHash(bytes)
}
