//! A clinic's slots, once or from now on.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::availability::Slot;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::clinic::{QueryInventoryRequest, WatchInventoryRequest, WatchInventoryResponse};
use serde_json::json;
use tonic::{Code, Status};

use super::show::{self, instant, inventory_json};
use super::{Output, Terminal};
use crate::client::{Called, print};

/// A gateway that was left is back, or another is there, within moments.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Clears the screen and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

fn client(terminal: &Terminal) -> anyhow::Result<ClinicServiceClient<Called>> {
    let called = terminal.target.connect_as_clinic(&terminal.clinic)?;
    Ok(ClinicServiceClient::new(called))
}

pub(super) async fn inventory(terminal: Terminal) -> anyhow::Result<()> {
    let clinic = terminal.clinic.to_string();
    let request = QueryInventoryRequest { clinic };
    let answer = client(&terminal)?
        .query_inventory(request)
        .await?
        .into_inner();
    match terminal.output {
        Output::Table => show::write(&show::inventory(&answer.slots)),
        Output::Json => print(&json!({
            "slots": inventory_json(&answer.slots), "as_of": instant(answer.as_of.as_ref()),
        })),
    }
}

/// Watches until it is interrupted or refused; a stream that breaks is resumed from its last cursor.
pub(super) async fn watch(terminal: Terminal) -> anyhow::Result<()> {
    let mut client = client(&terminal)?;
    let mut slots: BTreeMap<(i64, String), Slot> = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let request = WatchInventoryRequest {
            clinic: terminal.clinic.to_string(),
            cursor: cursor.clone(),
        };
        let ended = match client.watch_inventory(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            cursor.clone_from(&message.cursor);
                            show(message, &mut slots, terminal.output)?;
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        if let Some(status) = ended {
            if expired(&status) {
                cursor.clear();
            } else if status.code() != Code::Unavailable {
                return Err(status.into());
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn expired(status: &Status) -> bool {
    let refused = proto::status::read(status);
    refused.is_some_and(|refused| refused.refusal == domain::Refusal::CursorExpired)
}

fn show(
    message: WatchInventoryResponse,
    slots: &mut BTreeMap<(i64, String), Slot>,
    output: Output,
) -> anyhow::Result<()> {
    let as_of = instant(message.as_of.as_ref());
    if output == Output::Json {
        let line = json!({
            "snapshot": message.snapshot, "slots": inventory_json(&message.slots), "as_of": as_of,
        });
        return show::write(&format!("{line}\n"));
    }
    if message.snapshot {
        slots.clear();
    }
    for slot in message.slots {
        let start = slot.start_time.as_ref().map_or(0, |at| at.seconds);
        slots.insert((start, slot.name.clone()), slot);
    }
    let all: Vec<Slot> = slots.values().cloned().collect();
    let table = show::inventory(&all);
    show::write(&format!(
        "{CLEAR}{table}as of {}\n",
        as_of.unwrap_or_default()
    ))
}
