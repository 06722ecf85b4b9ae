//! Doses left at the end of a day: a clinic's rounds, and whether a round's order holds.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use domain::leftover::{Place, PlaceState, Published, Report, RoundKey, audit};
use domain::name::LeftoversName;
use proto::convert::from_timestamp;
use proto::leftover as pb;
use proto::leftover::leftover_service_client::LeftoverServiceClient;
use serde_json::{Value, json};

use super::Terminal;
use super::show::{self, Shown, at, instant, table};
use crate::client::{Called, Target, print};

/// `doseline clinic leftovers`.
#[derive(Debug, Subcommand)]
pub(crate) enum Leftovers {
    /// Offer doses to people who asked to be called, in a drawn order.
    Offer {
        #[command(flatten)]
        terminal: Terminal,
        /// The campaign whose people are called.
        #[arg(long)]
        campaign: String,
        /// The vaccine.
        vaccine: String,
        /// Doses.
        doses: u32,
        /// Until when people may come, such as 2031-03-10T18:30:00+09:00: today at the clinic.
        #[arg(long)]
        until: jiff::Timestamp,
        /// Seconds from the commitment to the draw, in which people can still join; 0 = 30.
        #[arg(long, default_value_t = 0)]
        notice: u32,
        /// Seconds that each person has to answer; 0 = 300.
        #[arg(long, default_value_t = 0)]
        answer: u32,
    },
    /// End a round at once; doses that nobody accepted are the clinic's again.
    End {
        #[command(flatten)]
        terminal: Terminal,
        /// The round: its number at this clinic.
        round: u64,
    },
    /// The clinic's rounds, newest first.
    List {
        #[command(flatten)]
        terminal: Terminal,
    },
    /// Everything of a round that its order follows from, as a document for `audit`; everybody may ask.
    Export {
        #[command(flatten)]
        target: Target,
        /// The round, such as regions/seoul/clinics/1168-0042/leftovers/7.
        round: LeftoversName,
    },
    /// Compute a round again from its exported document and say whether it holds.
    Audit {
        /// The document.
        file: PathBuf,
    },
}

impl Terminal {
    fn leftovers(&self) -> anyhow::Result<LeftoverServiceClient<Called>> {
        Ok(LeftoverServiceClient::new(
            self.target.connect_as_clinic(&self.clinic)?,
        ))
    }
}

/// Runs `doseline clinic leftovers`.
pub(super) async fn run(command: Leftovers) -> anyhow::Result<()> {
    match command {
        Leftovers::Offer {
            terminal,
            campaign,
            vaccine,
            doses,
            until,
            notice,
            answer,
        } => {
            let request = pb::OfferLeftoversRequest {
                clinic: terminal.clinic.to_string(),
                request_id: terminal.request_id(),
                campaign,
                vaccine,
                doses,
                close_time: Some(prost_types::Timestamp {
                    seconds: until.as_second(),
                    nanos: until.subsec_nanosecond(),
                }),
                notice_seconds: notice,
                answer_seconds: answer,
            };
            let id = request.request_id.clone();
            let told = terminal.leftovers()?.offer_leftovers(request).await?;
            let told = told.into_inner();
            let shown = Shown::of(id, told.repeated_answer).stock(told.stock);
            rounds(shown, told.round.as_slice()).print(terminal.output)?;
        }
        Leftovers::End { terminal, round } => {
            let request = pb::CloseLeftoversRequest {
                leftovers: format!("{}/leftovers/{round}", terminal.clinic),
                request_id: terminal.request_id(),
            };
            let id = request.request_id.clone();
            let told = terminal.leftovers()?.close_leftovers(request).await?;
            let told = told.into_inner();
            let shown = Shown::of(id, told.repeated_answer).stock(told.stock);
            rounds(shown, told.round.as_slice()).print(terminal.output)?;
        }
        Leftovers::List { terminal } => {
            let clinic = terminal.clinic.to_string();
            let request = pb::ListLeftoversRequest { clinic };
            let found = terminal.leftovers()?.list_leftovers(request).await?;
            let found = found.into_inner().rounds;
            rounds(Shown::read(), &found).print(terminal.output)?;
        }
        Leftovers::Export { target, round } => {
            let mut client = LeftoverServiceClient::new(target.connect()?);
            let request = pb::GetLeftoversRequest {
                leftovers: round.to_string(),
            };
            let found = client.get_leftovers(request).await?.into_inner();
            print(&serde_json::to_value(published(&round, &found)?)?)?;
        }
        Leftovers::Audit { file } => return judge(&file),
    }
    Ok(())
}

fn judge(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let round: Published = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no document of a round", file.display()))?;
    let Report {
        candidates,
        doses,
        offered,
        accepted,
    } = audit(&round).context("the round does not hold")?;
    show::write(&format!(
        "The round holds: {candidates} candidates, {doses} doses, {offered} offered in the drawn order, {accepted} accepted.\n"
    ))
}

fn rounds(shown: Shown, rounds: &[pb::Round]) -> Shown {
    let rows = rounds.iter().map(|round| {
        vec![
            show::number(&round.name),
            round.vaccine.clone(),
            round.doses.to_string(),
            round.accepted.to_string(),
            stage(round).trim_start_matches("STATE_").to_lowercase(),
            round.candidates.to_string(),
            at(round.close_time.as_ref()),
            round.commitment.chars().take(16).collect(),
        ]
    });
    let heads = [
        "ROUND",
        "VACCINE",
        "DOSES",
        "ACCEPTED",
        "STATE",
        "CALLED",
        "UNTIL",
        "COMMITMENT",
    ];
    let text = table(&heads, &rows.collect::<Vec<_>>());
    let value = |round: &pb::Round| {
        json!({
            "name": round.name, "campaign": round.campaign, "vaccine": round.vaccine, "doses": round.doses,
            "accepted": round.accepted, "state": stage(round), "commitment": round.commitment,
            "seed": round.seed, "list_root": round.list_root, "candidates": round.candidates,
            "offer_time": instant(round.offer_time.as_ref()), "draw_time": instant(round.draw_time.as_ref()),
            "close_time": instant(round.close_time.as_ref()),
        })
    };
    let values: Value = rounds.iter().map(value).collect();
    shown.add("rounds", values, text)
}

fn stage(round: &pb::Round) -> &'static str {
    pb::round::State::try_from(round.state).map_or("STATE_UNSPECIFIED", |state| state.as_str_name())
}

/// What the audit reads of an answer.
fn published(name: &LeftoversName, found: &pb::GetLeftoversResponse) -> anyhow::Result<Published> {
    let round = found.round.as_ref().context("an answer without a round")?;
    anyhow::ensure!(
        !round.seed.is_empty(),
        "the round has not been drawn: there is nothing to audit yet"
    );
    let places = found.places.iter().map(|place| {
        Ok(Place {
            ticket: place.ticket.clone(),
            state: place_state(place)?,
            offered_at: place.offer_time.as_ref().map(from_timestamp),
            deadline: place.deadline.as_ref().map(from_timestamp),
            ended_at: place.end_time.as_ref().map(from_timestamp),
        })
    });
    Ok(Published {
        key: RoundKey {
            campaign: round.campaign.parse()?,
            clinic: name.clinic.clinic.clone(),
            round: name.round,
        },
        doses: round.doses,
        commitment: round.commitment.parse()?,
        seed: round.seed.parse()?,
        list_root: round.list_root.parse()?,
        candidates: round.candidates,
        places: places.collect::<anyhow::Result<_>>()?,
    })
}

fn place_state(place: &pb::Place) -> anyhow::Result<PlaceState> {
    Ok(match pb::PlaceState::try_from(place.state)? {
        pb::PlaceState::Waiting => PlaceState::Waiting,
        pb::PlaceState::Offered => PlaceState::Offered,
        pb::PlaceState::Accepted => PlaceState::Accepted,
        pb::PlaceState::Declined => PlaceState::Declined,
        pb::PlaceState::Expired => PlaceState::Expired,
        pb::PlaceState::Left => PlaceState::Left,
        pb::PlaceState::Passed => PlaceState::Passed,
        pb::PlaceState::Unspecified => anyhow::bail!("a place without a state"),
    })
}
