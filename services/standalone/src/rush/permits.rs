//! Permits before the doors. They lie in a file, not in memory: 8 bytes a person stay.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use identity::development::Provider;
use proto::identity::IssuePermitRequest;
use proto::identity::identity_service_client::IdentityServiceClient;
use runtime::Clock;

use super::stats::{Call, Stats};
use super::{Rush, bar};

/// For whom assertions are.
const AUDIENCE: &str = "doseline";
/// Tries of one person for a permit.
const TRIES: u32 = 60;

/// Everybody's permit, by number.
pub(crate) struct Store {
    file: File,
    /// Where each permit begins; one more at the end.
    offsets: Vec<u64>,
}

impl Store {
    /// The permit of a person.
    pub(crate) fn permit(&self, number: u64) -> anyhow::Result<String> {
        let at = usize::try_from(number)?;
        let (from, to) = (self.offsets[at], self.offsets[at + 1]);
        let mut text = vec![0; usize::try_from(to - from)?];
        self.file.read_exact_at(&mut text, from)?;
        Ok(String::from_utf8(text)?)
    }
}

/// Asks for everybody's permit.
pub(crate) async fn issue(rush: &Arc<Rush>) -> anyhow::Result<(Store, Stats)> {
    let people = rush.population.people();
    let provider = Arc::new(Provider::load_or_create(
        &rush.args.data.join("development"),
    )?);
    std::fs::create_dir_all(&rush.args.report)?;
    let path = rush.args.report.join("permits.tmp");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let bar = bar(people, "permits")?;
    let mut stats = Stats::default();
    let mut offsets = vec![0u64; usize::try_from(people)? + 1];
    let mut end = 0u64;
    // Signing assertions is the provider's work, not the system's: off the threads that drive the calls.
    let mut calls = futures::stream::iter(0..people)
        .map(|number| one(Arc::clone(rush), Arc::clone(&provider), number))
        .buffered(rush.args.in_flight);
    let mut number = 0usize;
    while let Some(issued) = calls.next().await {
        let (permit, took, tries) = issued?;
        stats.call(Call::IssuePermit, "OK", took, took);
        for _ in 0..tries {
            stats.call(Call::IssuePermit, "tried again", took, took);
        }
        file.write_all(permit.as_bytes())?;
        end += permit.len() as u64;
        number += 1;
        offsets[number] = end;
        bar.inc(1);
    }
    bar.finish();
    file.flush()?;
    drop(file);
    let file = File::open(&path)?;
    // Open files outlive their names: nothing is left behind, however this ends.
    std::fs::remove_file(&path)?;
    Ok((Store { file, offsets }, stats))
}

async fn one(
    rush: Arc<Rush>,
    provider: Arc<Provider>,
    number: u64,
) -> anyhow::Result<(String, Duration, u32)> {
    let due = super::now();
    let person = rush.population.person(number);
    let (region, birth_date) = (person.district.region.clone(), person.birth_date);
    let sub = format!("demo-{}-{number}", rush.args.seed);
    let sign = move || {
        let now = Clock::system().wall();
        provider.sign(&sub, birth_date, AUDIENCE, now, Duration::from_secs(600))
    };
    let assertion = tokio::task::spawn_blocking(sign).await?;
    let at = usize::try_from(number)? % rush.channels.len();
    let mut identity = IdentityServiceClient::new(rush.channels[at].clone());
    for tries in 0..TRIES {
        let request = IssuePermitRequest {
            campaign: rush.args.campaign.clone(),
            region: region.clone(),
            assertion: assertion.clone(),
        };
        match identity.issue_permit(request).await {
            Ok(issued) => return Ok((issued.into_inner().permit, due.elapsed(), tries)),
            Err(status) => {
                let retry = matches!(
                    status.code(),
                    tonic::Code::Unavailable | tonic::Code::DeadlineExceeded
                );
                anyhow::ensure!(retry, "no permit for person {number}: {status}");
                let after = proto::status::read(&status).and_then(|refused| refused.retry_after);
                tokio::time::sleep(after.unwrap_or(Duration::from_millis(500))).await;
            }
        }
    }
    Err(anyhow::anyhow!(
        "no permit for person {number} after {TRIES} tries"
    ))
    .context("identity")
}
