//! Terminals watch their clinics while people book and owners hand over: each ends with what the ledger has.
//!
//! Invariant: a terminal is sent one snapshot, and then only what it did not have already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::availability::Slot;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::clinic::{WatchInventoryRequest, WatchInventoryResponse};
use runtime::transport;
use system_tests::await_until::await_until;
use system_tests::town::{Options, REGION, Town};
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;

use crate::load::Load;

const WITHIN: Duration = Duration::from_secs(60);
/// Owners that leave and come back.
const ROUNDS: u32 = 2;
const STEP: u64 = 400;
/// Terminals of each clinic at each gateway.
const TERMINALS: usize = 4;

/// What one terminal was told.
#[derive(Debug, Default)]
struct Told {
    slots: BTreeMap<String, Slot>,
    snapshots: u32,
    changes: u32,
    doubles: u32,
    ended: Option<String>,
}

struct Terminal {
    clinic: String,
    told: Arc<Mutex<Told>>,
    _task: AbortOnDropHandle<()>,
}

// === impl Told ===

impl Told {
    fn hear(&mut self, message: WatchInventoryResponse) {
        self.snapshots += u32::from(message.snapshot);
        for slot in message.slots {
            let known = self.slots.insert(slot.name.clone(), slot.clone());
            if !message.snapshot {
                self.changes += 1;
                self.doubles += u32::from(known.as_ref() == Some(&slot));
            }
        }
    }
}

// === impl Terminal ===

impl Terminal {
    fn watch(gateway: &str, clinic: &str) -> anyhow::Result<Self> {
        let channel = transport::connect(gateway, None, &transport::ClientSettings::default())?;
        let mut request = Request::new(WatchInventoryRequest {
            clinic: format!("regions/{REGION}/clinics/{clinic}"),
            cursor: String::new(),
        });
        let system = format!("{REGION}--{clinic}").parse()?;
        request.metadata_mut().insert("x-doseline-caller", system);
        let role = "clinic".parse()?;
        request.metadata_mut().insert("x-doseline-role", role);
        let told = Arc::new(Mutex::new(Told::default()));
        let heard = Arc::clone(&told);
        let task = tokio::spawn(async move {
            let ended = match ClinicServiceClient::new(channel)
                .watch_inventory(request)
                .await
            {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(message)) => lock(&heard).hear(message),
                            Ok(None) => break "the stream ended".to_owned(),
                            Err(status) => break format!("{status:?}"),
                        }
                    }
                }
                Err(status) => format!("{status:?}"),
            };
            lock(&heard).ended = Some(ended);
        });
        Ok(Self {
            clinic: clinic.to_owned(),
            told,
            _task: AbortOnDropHandle::new(task),
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::print_stdout,
    reason = "the figures are what a reader of this test wants"
)]
async fn a_watched_inventory_ends_as_the_ledger_without_a_double_over_hand_overs()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), Options::with_people(1_000)).await?;
    let clinics: Vec<String> = town
        .slots
        .iter()
        .flatten()
        .filter_map(|slot| slot.split('/').nth(3).map(str::to_owned))
        .collect();
    let mut terminals = Vec::new();
    for gateway in &town.cluster.gateways {
        for clinic in &clinics {
            for _ in 0..TERMINALS {
                terminals.push(Terminal::watch(&gateway.addr, clinic)?);
            }
        }
    }
    let load = Load::start(&mut town);
    for round in 0..ROUNDS {
        load.more_answers(STEP).await?;
        let owner = town.owner(round % town.shards()).await?;
        let at = town.inventory(&owner)?;
        let leaving = &mut town.cluster.inventories[at].process;
        leaving.terminate()?;
        leaving.await_exit(WITHIN).await?;
        load.more_answers(STEP).await?;
        town.cluster.inventories[at].process.restart()?;
        town.cluster.await_ready(WITHIN).await?;
    }
    load.stop().await?;
    let ledger = town.ledger().await?;
    let of = "SELECT clinic, capacity - booked FROM slot";
    let rows = ledger.query(of, &[]).await?;
    let left: BTreeMap<String, i32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let agrees = |terminal: &Terminal| {
        let told = terminal.told();
        let shown = told.slots.values().map(|slot| i64::from(slot.left));
        shown.eq(left.get(&terminal.clinic).map(|left| i64::from(*left)))
    };
    await_until(
        "every terminal shows what the ledger has",
        WITHIN,
        || async { terminals.iter().all(agrees) },
    )
    .await?;
    let (mut changes, mut doubles) = (0, 0);
    for terminal in &terminals {
        let told = terminal.told();
        anyhow::ensure!(
            told.snapshots == 1 && told.ended.is_none(),
            "{}: {told:?}",
            terminal.clinic
        );
        changes += told.changes;
        doubles += told.doubles;
    }
    println!(
        "{} terminals were told {changes} changes, {doubles} of them twice",
        terminals.len()
    );
    assert_eq!(doubles, 0);
    assert!(changes > 0, "people booked");
    Ok(())
}
