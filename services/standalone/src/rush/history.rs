//! What a room's history says of its line: whether frontiers moved as they were set, and how far they can have been
//! at any time. From the published versions, by code that shares nothing with the services.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use proto::room::ListRoomVersionsRequest;
use proto::room::room_service_client::RoomServiceClient;
use serde_json::Value;

use super::Rush;
use super::setup::COHORT;

/// How long a reader may go on with a document after the next one was begun.
const READER_LAG_MICROS: i64 = 2_000_000;
/// Windows over which speeds are compared.
const WINDOW_MICROS: i64 = 10_000_000;

/// A version, as far as the line needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Version {
    /// When its write began, microseconds since 1970.
    pub(super) began: i64,
    /// Whether lines move.
    pub(super) open: bool,
    /// By region.
    pub(super) lines: BTreeMap<String, Line>,
}

/// A region's line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) f0: u64,
    pub(super) per_kilosecond: u64,
    pub(super) ttl_micros: i64,
    pub(super) f_end: u64,
    pub(super) exhausted: bool,
}

/// All versions of a room, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(super) versions: Vec<Version>,
    /// The draw's final seed, once there is one.
    pub(super) final_seed: Option<[u8; 32]>,
    /// Closed buckets by id: before, size.
    pub(super) buckets: BTreeMap<u32, (u64, u64)>,
}

/// A region's lines as readers can have followed them, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Reach(Vec<Followed>);

#[derive(Clone, Debug)]
struct Followed {
    began: i64,
    /// No reader follows it after that.
    until: i64,
    line: Line,
    /// The farthest that all earlier ones reach at their ends.
    before: u64,
}

/// When a region's line came where, oldest version first.
#[derive(Clone, Debug)]
pub(super) struct Turns(Vec<Stretch>);

#[derive(Clone, Debug)]
struct Stretch {
    began: i64,
    line: Line,
    /// The farthest that this version and all before it came.
    to: u64,
}

/// How lines moved against what they were set to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moved {
    /// Windows of ten seconds that were compared.
    pub windows: u64,
    /// The largest difference, as a part of the set speed.
    pub worst: f64,
}

// === impl Line ===

impl Line {
    fn after(&self, elapsed: i64) -> u64 {
        let elapsed = elapsed.clamp(0, self.ttl_micros.max(0));
        let advance =
            u128::from(self.per_kilosecond) * elapsed.unsigned_abs() as u128 / 1_000_000_000;
        let reached = u128::from(self.f0) + advance;
        u64::try_from(reached).unwrap_or(u64::MAX).min(self.f_end)
    }
}

// === impl Reach ===

impl Reach {
    /// The farthest that any reader's frontier can have been at `at`, microseconds since 1970.
    pub(super) fn frontier(&self, at: i64) -> u64 {
        let begun = self.0.partition_point(|one| one.began <= at);
        let mut farthest = 0;
        for one in self.0[..begun].iter().rev() {
            farthest = farthest.max(one.line.after(at.min(one.until) - one.began));
            // Versions end in the order they began: all before have ended, too.
            if one.until <= at {
                return farthest.max(one.before);
            }
        }
        farthest
    }
}

// === impl Turns ===

impl Turns {
    /// When the line passed an ordinal, microseconds since 1970; `None` if it never did.
    pub(super) fn at(&self, ordinal: u64) -> Option<i64> {
        let passed = self.0.partition_point(|one| one.to <= ordinal);
        let Stretch { began, line, .. } = self.0.get(passed)?;
        let missing = (ordinal + 1).saturating_sub(line.f0);
        if missing == 0 {
            return Some(*began);
        }
        let speed = u128::from(line.per_kilosecond);
        let micros = (u128::from(missing) * 1_000_000_000).checked_div(speed)?;
        Some(began + i64::try_from(micros).ok()?)
    }
}

// === impl History ===

impl History {
    /// How far a region's line can have been seen to reach, for many questions.
    pub(super) fn reach(&self, region: &str) -> Reach {
        let nexts = self.versions.iter().skip(1).map(Some).chain([None]);
        let mut farthest = 0;
        let followed = self.versions.iter().zip(nexts);
        let followed = followed.filter_map(|(version, next)| {
            let line = *version.lines.get(region).filter(|_| version.open)?;
            let until = next.map_or(i64::MAX, |next| next.began + READER_LAG_MICROS);
            let before = farthest;
            farthest = farthest.max(line.after(until.saturating_sub(version.began)));
            Some(Followed {
                began: version.began,
                until,
                line,
                before,
            })
        });
        Reach(followed.collect())
    }

    /// When a region's line came where, each version followed until the next one was begun.
    pub(super) fn turns(&self, region: &str) -> Turns {
        let nexts = self.versions.iter().skip(1).map(Some).chain([None]);
        let mut to = 0;
        let stretches = self.versions.iter().zip(nexts);
        let stretches = stretches.filter_map(|(version, next)| {
            let line = *version.lines.get(region).filter(|_| version.open)?;
            let until = next.map_or(i64::MAX, |next| next.began);
            to = line.after(until.saturating_sub(version.began)).max(to);
            Some(Stretch {
                began: version.began,
                line,
                to,
            })
        });
        Turns(stretches.collect())
    }

    /// When the doors opened, microseconds since 1970.
    pub(super) fn opened(&self) -> Option<i64> {
        Some(self.versions.iter().find(|version| version.open)?.began)
    }

    /// The place in line, by the design's formula.
    pub(super) fn ordinal(&self, bucket: u32, ticket: &[u8; 16]) -> Option<u64> {
        let (before, size) = *self.buckets.get(&bucket)?;
        let mut message = [0u8; 20];
        message[..4].copy_from_slice(&bucket.to_be_bytes());
        message[4..].copy_from_slice(ticket);
        let mac = hmac_sha256(&self.final_seed?, &message);
        let mut first = [0u8; 8];
        first.copy_from_slice(&mac[..8]);
        let within = (u128::from(size) * u128::from(u64::from_be_bytes(first))) >> 64;
        Some(before + u64::try_from(within).ok()?)
    }

    /// Compares how far each line came in any ten seconds with the speed it was set to.
    pub(crate) fn moved(&self) -> Moved {
        let mut moved = Moved::default();
        let regions: std::collections::BTreeSet<&String> = self
            .versions
            .iter()
            .flat_map(|version| version.lines.keys())
            .collect();
        for region in regions {
            for run in self.runs(region) {
                compare(&run, &mut moved);
            }
        }
        moved
    }

    /// Stretches in which nothing but its speed held a region's line.
    fn runs(&self, region: &str) -> Vec<Vec<(i64, Line)>> {
        let (mut runs, mut run) = (Vec::new(), Vec::<(i64, Line)>::new());
        for version in &self.versions {
            let line = version.lines.get(region).copied().unwrap_or_default();
            let unhindered = run.last().is_none_or(|(began, before)| {
                let elapsed = version.began - began;
                elapsed <= before.ttl_micros && before.after(elapsed) < before.f_end
            });
            if !unhindered {
                runs.push(std::mem::take(&mut run));
            }
            if version.open && !line.exhausted && line.per_kilosecond > 0 {
                run.push((version.began, line));
            } else {
                runs.push(std::mem::take(&mut run));
            }
        }
        runs.push(run);
        runs
    }

    /// From the opening to the first region that has nothing left or nobody waiting, microseconds since 1970.
    pub(crate) fn steady(&self) -> Option<(i64, i64)> {
        let open: Vec<_> = self
            .versions
            .iter()
            .filter(|version| version.open)
            .collect();
        let end = open
            .iter()
            .find(|version| {
                let lines = version.lines.values();
                lines.into_iter().any(|line| {
                    line.exhausted || (line.per_kilosecond > 0 && line.f0 >= line.f_end)
                })
            })
            .or(open.last())?;
        Some((open.first()?.began, end.began))
    }
}

fn compare(run: &[(i64, Line)], moved: &mut Moved) {
    for (at, (began, first)) in run.iter().enumerate() {
        let mut set = 0.0;
        for pair in run[at..].windows(2) {
            let ((from, line), (to, next)) = (pair[0], pair[1]);
            set += line.per_kilosecond as f64 * (to - from) as f64 / 1e9;
            if to - began >= WINDOW_MICROS {
                let came = next.f0.saturating_sub(first.f0) as f64;
                // Below fifty a step of one ordinal would be more than the bound.
                if set >= 50.0 {
                    moved.windows += 1;
                    moved.worst = moved.worst.max((came / set - 1.0).abs());
                }
                break;
            }
        }
    }
}

/// Reads the history from a gateway.
pub(super) async fn read(rush: &Rush) -> anyhow::Result<History> {
    let mut client = RoomServiceClient::new(rush.channels[0].clone());
    let request = ListRoomVersionsRequest {
        campaign: rush.args.campaign.clone(),
        cohort: COHORT.to_owned(),
        after_version: 0,
    };
    let mut parts = client.list_room_versions(request).await?.into_inner();
    let mut history = History::default();
    while let Some(part) = parts.message().await? {
        for version in part.versions {
            let time = version.write_time.unwrap_or_default();
            let began = time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000;
            let room = payload(&version.document)?;
            if let Some(seed) = room["draw"]["final_seed"].as_str() {
                history.final_seed = Some(bytes_32(seed)?);
            }
            history.versions.push(parse(&room, began));
        }
    }
    let mut first_bucket = 0;
    loop {
        let request = proto::room::GetDrawRequest {
            campaign: rush.args.campaign.clone(),
            cohort: COHORT.to_owned(),
            first_bucket,
        };
        let draw = client.get_draw(request).await?.into_inner();
        for text in &draw.buckets {
            let bucket = payload(text)?;
            let number = |name: &str| bucket[name].as_u64().context("a bucket's number");
            let id = u32::try_from(number("id")?)?;
            history
                .buckets
                .insert(id, (number("before")?, number("size")?));
        }
        if !draw.more_buckets {
            return Ok(history);
        }
        first_bucket += 1_000;
    }
}

fn parse(room: &Value, began: i64) -> Version {
    let mut version = Version {
        began,
        open: matches!(room["phase"].as_str(), Some("OPEN" | "EXHAUSTED")),
        lines: BTreeMap::new(),
    };
    for (region, line) in room["regions"].as_object().into_iter().flatten() {
        let number = |name: &str| line[name].as_u64().unwrap_or(0);
        let ttl = Duration::from_millis(number("ttl_ms")).as_micros();
        let line = Line {
            f0: number("f0"),
            per_kilosecond: number("per_kilosecond"),
            ttl_micros: i64::try_from(ttl).unwrap_or(i64::MAX),
            f_end: number("f_end"),
            exhausted: line["state"] == "EXHAUSTED",
        };
        version.lines.insert(region.clone(), line);
    }
    version
}

/// What a signed text says; who signed it is for others to check.
pub(super) fn payload(text: &str) -> anyhow::Result<Value> {
    let payload = text
        .strip_prefix("v4.public.")
        .and_then(|rest| rest.split('.').next())
        .context("not a signed text")?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?;
    let message = bytes
        .get(..bytes.len().saturating_sub(64))
        .context("a short text")?;
    Ok(serde_json::from_slice(message)?)
}

fn bytes_32(text: &str) -> anyhow::Result<[u8; 32]> {
    let mut out = [0u8; 32];
    anyhow::ensure!(text.len() == 64 && text.is_ascii(), "not 32 bytes in hex");
    for (byte, at) in out.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16)?;
    }
    Ok(out)
}

/// RFC 2104 with SHA-256, for keys up to a block.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let (mut inner, mut outer) = ([0x36u8; 64], [0x5cu8; 64]);
    for ((inner, outer), key) in inner.iter_mut().zip(&mut outer).zip(key) {
        *inner ^= key;
        *outer ^= key;
    }
    let digest = Sha256::new()
        .chain_update(inner)
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(outer)
        .chain_update(digest)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn version(at: i64, f0: u64, people_per_second: u64) -> Version {
        let line = Line {
            f0,
            per_kilosecond: people_per_second * 1_000,
            ttl_micros: 10 * SECOND,
            f_end: 1_000_000,
            exhausted: false,
        };
        Version {
            began: at,
            open: true,
            lines: [("seoul".to_owned(), line)].into(),
        }
    }

    fn history(speed_up_percent: u64) -> History {
        let versions = (0..60u64).map(|n| {
            let at = i64::try_from(n).expect("small") * SECOND;
            version(at, n * (100 + speed_up_percent), 100)
        });
        History {
            versions: versions.collect(),
            ..History::default()
        }
    }

    #[test]
    fn a_line_that_moves_as_set_is_told_from_one_that_does_not() {
        let even = history(0).moved();
        assert!(even.windows > 40 && even.worst < 1e-9, "{even:?}");
        let fast = history(5).moved();
        assert!((fast.worst - 0.05).abs() < 1e-9, "{fast:?}");
    }

    #[test]
    fn a_reader_may_lag_two_seconds_behind_and_no_more() {
        let mut history = history(0);
        history.versions.truncate(2);
        // The second document stops the line.
        history.versions[1] = version(SECOND, 100, 0);
        assert_eq!(history.reach("seoul").frontier(SECOND / 2), 50);
        assert_eq!(history.reach("seoul").frontier(2 * SECOND), 200);
        assert_eq!(history.reach("seoul").frontier(9 * SECOND), 300);
        assert_eq!(history.reach("jeju").frontier(9 * SECOND), 0);
        history.versions[0].open = false;
        assert_eq!(history.reach("seoul").frontier(9 * SECOND), 100);
    }

    #[test]
    fn a_turn_comes_when_the_line_has_passed_the_ordinal() {
        // 500 people a second, from the second second on half of that, and then nothing new for as long as the plan lasts.
        let versions = vec![version(0, 0, 500), version(1_000_000, 500, 250)];
        let history = History {
            versions,
            ..History::default()
        };
        let turns = history.turns("seoul");
        assert_eq!(history.opened(), Some(0));
        for (ordinal, at) in [
            (0, 2_000),
            (499, 1_000_000),
            (500, 1_004_000),
            (749, 2_000_000),
        ] {
            assert_eq!(turns.at(ordinal), Some(at), "{ordinal}");
        }
        assert_eq!(turns.at(u64::MAX - 1), None);
        assert_eq!(history.turns("nowhere").at(0), None);
    }

    #[test]
    fn our_hmac_is_that_of_rfc_4231_and_ordinals_fill_their_bucket() {
        // Test case 2 of RFC 4231 has a short key; padded with zeros it is the same key.
        let mut key = [0u8; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = hmac_sha256(&key, b"what do ya want for nothing?");
        assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        let mut history = History {
            final_seed: Some([7; 32]),
            ..History::default()
        };
        assert_eq!(history.ordinal(0, &[1; 16]), None);
        history.buckets.insert(0, (100, 10));
        let ordinal = history.ordinal(0, &[1; 16]).expect("closed");
        assert!((100..110).contains(&ordinal));
    }
}
