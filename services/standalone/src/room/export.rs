//! Writes the audit bundle of a room from public calls alone: what anybody can fetch, anybody can audit.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proto::room::room_service_client::RoomServiceClient;
use proto::room::{GetDrawRequest, ListRoomVersionsRequest, ListTicketsRequest};
use serde_json::json;

use crate::client::{Called, Target, print};

/// A message of a hundred versions of a room with many regions.
const MESSAGE_MAX: usize = 8 << 20;
/// Buckets in one answer, as the interface says.
const BUCKETS_A_CALL: u32 = 1_000;
const TICKET_BYTES: usize = 16;

/// `doseline room export`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The campaign.
    campaign: String,
    /// The cohort.
    cohort: String,
    /// Folder for steps.jsonl, buckets.jsonl, room.jsonl, tickets-N.txt and keys.json; made if it is missing.
    folder: PathBuf,
}

struct Export {
    client: RoomServiceClient<Called>,
    campaign: String,
    cohort: String,
    folder: PathBuf,
}

/// Writes the bundle.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = RoomServiceClient::new(args.target.connect()?);
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("{} cannot be made", args.folder.display()))?;
    let mut export = Export {
        client: client.max_decoding_message_size(MESSAGE_MAX),
        campaign: args.campaign,
        cohort: args.cohort,
        folder: args.folder,
    };
    // First the room, then what it speaks of: nothing that it names is missing.
    let versions = export.versions().await.context("the room's history")?;
    let (steps, buckets) = export.draw().await.context("the draw")?;
    let mut tickets = 0;
    for bucket in 0..buckets {
        let list = export.tickets(bucket).await;
        tickets += list.with_context(|| format!("tickets of bucket {bucket}"))?;
    }
    print(
        &json!({ "steps": steps, "buckets": buckets, "room_versions": versions, "tickets": tickets }),
    )
}

impl Export {
    fn create(&self, name: &str) -> anyhow::Result<BufWriter<File>> {
        let path: &Path = &self.folder.join(name);
        let file = File::create(path).with_context(|| format!("{}", path.display()))?;
        Ok(BufWriter::new(file))
    }

    async fn versions(&mut self) -> anyhow::Result<u64> {
        let request = ListRoomVersionsRequest {
            campaign: self.campaign.clone(),
            cohort: self.cohort.clone(),
            after_version: 0,
        };
        let mut parts = self.client.list_room_versions(request).await?.into_inner();
        let (mut out, mut count) = (self.create("room.jsonl")?, 0);
        while let Some(part) = parts.message().await? {
            for version in part.versions {
                writeln!(out, "{}", version.document)?;
                count += 1;
            }
        }
        out.flush()?;
        Ok(count)
    }

    async fn draw(&mut self) -> anyhow::Result<(usize, u32)> {
        let (mut out, mut count) = (self.create("buckets.jsonl")?, 0);
        loop {
            let request = GetDrawRequest {
                campaign: self.campaign.clone(),
                cohort: self.cohort.clone(),
                first_bucket: count,
            };
            let draw = self.client.get_draw(request).await?.into_inner();
            for bucket in &draw.buckets {
                writeln!(out, "{bucket}")?;
            }
            count += u32::try_from(draw.buckets.len())?;
            if draw.more_buckets && draw.buckets.len() as u64 == u64::from(BUCKETS_A_CALL) {
                continue;
            }
            out.flush()?;
            let mut steps = self.create("steps.jsonl")?;
            for step in &draw.steps {
                writeln!(steps, "{step}")?;
            }
            steps.flush()?;
            let mut keys = self.create("keys.json")?;
            keys.write_all(draw.keys.as_bytes())?;
            keys.flush()?;
            return Ok((draw.steps.len(), count));
        }
    }

    async fn tickets(&mut self, bucket: u32) -> anyhow::Result<u64> {
        let request = ListTicketsRequest {
            campaign: self.campaign.clone(),
            cohort: self.cohort.clone(),
            bucket,
        };
        let mut parts = self.client.list_tickets(request).await?.into_inner();
        let mut out = self.create(&format!("tickets-{bucket}.txt"))?;
        let mut count = 0;
        while let Some(part) = parts.message().await? {
            let tickets = part.tickets.chunks_exact(TICKET_BYTES);
            anyhow::ensure!(tickets.remainder().is_empty(), "a ticket is cut in two");
            for ticket in tickets {
                for byte in ticket {
                    write!(out, "{byte:02x}")?;
                }
                writeln!(out)?;
                count += 1;
            }
        }
        out.flush()?;
        Ok(count)
    }
}
