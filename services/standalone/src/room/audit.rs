//! Recomputes a draw from its published documents alone, and says whether it holds.
//!
//! Invariant: nothing is believed that the documents do not prove, and a document that cannot be read proves nothing.
//! A second implementation that shares no line with this one is `tests/python/audit.py`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use domain::place::{DrawKey, DrawTicket, Place, ordinal};
use domain::room::draw::{BadStep, Body, Chain, Freeze, Step};
use domain::room::{BucketDocument, Buckets, Bytes32, Draw, Phase, Room, read_hex};

mod lists;

use lists::Lists;

/// What to check, and whose place to tell.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Folder with steps.jsonl, buckets.jsonl, room.jsonl, tickets-0.txt and keys.json.
    folder: PathBuf,
    /// Tell this draw ticket's place in line (32 hex digits).
    #[arg(long)]
    ticket: Option<String>,
    /// The bucket of the ticket.
    #[arg(long, default_value_t = 0, requires = "ticket")]
    bucket: u32,
    /// Write every published ticket's place: lines of bucket, ticket, ordinal.
    #[arg(long)]
    ordinals: Option<PathBuf>,
}

/// What was checked, in order.
#[derive(Debug, Default)]
struct Findings(Vec<(&'static str, Result<String, String>)>);

/// What the documents prove.
struct Proven {
    draw_key: DrawKey,
    buckets: Buckets,
    lists: Lists,
}

/// The steps, as far as they go.
struct Steps {
    /// What was known after 0, 1, 2 … steps.
    draws: Vec<Draw>,
    chain: Chain,
    freeze: Option<Freeze>,
}

/// Audits a folder; an error is a verdict, too.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    let proven = audit(&args.folder, &mut findings);
    let mut out = std::io::stdout().lock();
    for (name, found) in &findings.0 {
        match found {
            Ok(detail) => writeln!(out, "holds     {name}: {detail}")?,
            Err(problem) => writeln!(out, "DOES NOT  {name}: {problem}")?,
        }
    }
    let holds = findings.0.iter().all(|(_, found)| found.is_ok());
    let Some(proven) = proven.filter(|_| holds) else {
        writeln!(out, "verdict: does NOT hold")?;
        anyhow::bail!("the published documents do not hold");
    };
    writeln!(out, "verdict: holds")?;
    if let Some(path) = &args.ordinals {
        let file = std::fs::File::create(path).with_context(|| format!("{}", path.display()))?;
        proven.write_ordinals(&mut BufWriter::new(file))?;
    }
    if let Some(ticket) = &args.ticket {
        writeln!(out, "{}", proven.place(ticket, args.bucket)?)?;
    }
    Ok(())
}

fn audit(folder: &Path, findings: &mut Findings) -> Option<Proven> {
    let keys = findings.take("keys", || {
        let keys = runtime::trusted_keys::parse(&read(folder, "keys.json")?).map_err(text)?;
        let count = keys.ids().count();
        Ok((keys, format!("{count} trusted")))
    })?;
    let lines = |name| {
        let text = String::from_utf8(read(folder, name)?).map_err(text)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let lines = text.split('\n').map(str::to_owned);
        Ok::<Vec<String>, String>(if text.is_empty() {
            Vec::new()
        } else {
            lines.collect()
        })
    };
    let steps = walk(&keys, &lines("steps.jsonl"), findings)?;
    let lists = findings.take("list", || {
        let freeze = steps.freeze.as_ref().ok_or("no list was frozen")?;
        let lists = Lists::open(folder)?;
        let list = lists.read(0)?;
        same("the root of the list", list.root, freeze.list_root)?;
        same("the length of the list", list.n, freeze.n0)?;
        Ok((
            lists,
            format!("{} tickets under root {}", list.n, list.root),
        ))
    })?;
    let buckets = findings.take("buckets", || {
        let mut buckets = Buckets::default();
        for line in &lines("buckets.jsonl")? {
            take_bucket(&mut buckets, &keys, line, &steps, &lists)?;
        }
        if buckets.is_empty() {
            return Err("bucket 0 was never closed".to_owned());
        }
        let detail = format!("{} closed, {} people", buckets.len(), buckets.people());
        Ok((buckets, detail))
    })?;
    findings.take("late lists", || {
        lists.late(&buckets).map(|detail| ((), detail))
    })?;
    findings.take("rooms", || {
        let mut rooms = Rooms::default();
        for line in &lines("room.jsonl")? {
            rooms.take(&keys, line, &steps, &buckets)?;
        }
        rooms.finish(&steps).map(|detail| ((), detail))
    })?;
    let final_seed = steps.chain.draw().final_seed?;
    Some(Proven {
        draw_key: DrawKey::new(&final_seed.0),
        buckets,
        lists,
    })
}

/// The chain of steps, told as the checks that people ask about.
fn walk(
    keys: &domain::paseto::TrustedKeys,
    lines: &Result<Vec<String>, String>,
    findings: &mut Findings,
) -> Option<Steps> {
    let mut steps: Option<Steps> = None;
    let mut found: [(&'static str, Result<String, String>); 4] =
        ["steps", "seed", "beacon", "final seed"].map(|name| (name, Err("is missing".to_owned())));
    let mut take = |line: &String| -> Result<(), (usize, String)> {
        let (step, hash) = Step::verify(keys, line).map_err(|why| (0, why.to_string()))?;
        let steps = steps.get_or_insert_with(|| Steps {
            draws: vec![Draw::default()],
            chain: Chain::new(step.campaign.clone(), step.cohort.clone()),
            freeze: None,
        });
        let name = step.body.name();
        let appended = steps.chain.append(&step, hash);
        appended.map_err(|why| (check_of(why), format!("{name} {why}")))?;
        steps.draws.push(steps.chain.draw().clone());
        match step.body {
            Body::Commit(_) => {}
            Body::Freeze(freeze) => steps.freeze = Some(freeze),
            Body::Reveal { seed } if seed == Bytes32::ZERO => {
                found[1].1 = Ok("not revealed in time: 32 zero bytes".to_owned());
            }
            Body::Reveal { .. } => found[1].1 = Ok("is the committed one".to_owned()),
            Body::Beacon(beacon) => {
                found[2].1 = Ok(format!(
                    "{}, {}, was announced",
                    beacon.source, beacon.round
                ));
                let seed = steps.chain.draw().final_seed;
                found[3].1 = seed
                    .map(|seed| seed.to_string())
                    .ok_or("is missing".to_owned());
            }
            Body::Doors { .. } => {}
        }
        Ok(())
    };
    let ended = match lines {
        Ok(lines) => lines.iter().try_for_each(&mut take),
        Err(problem) => Err((0, problem.clone())),
    };
    found[0].1 = match &steps {
        Some(steps) => Ok(format!(
            "{} signed steps, each naming the one before",
            steps.chain.length()
        )),
        None => Err("there are none".to_owned()),
    };
    if let Err((check, problem)) = ended {
        found[check].1 = Err(problem);
    }
    let good = found.iter().all(|(_, found)| found.is_ok());
    findings.0.extend(found);
    steps.filter(|_| good)
}

/// Which check a bad step fails.
fn check_of(why: BadStep) -> usize {
    match why {
        BadStep::SeedChanged | BadStep::SeedLate => 1,
        BadStep::WrongBeacon | BadStep::BeaconKnown | BadStep::BeaconEarly => 2,
        BadStep::WrongFinalSeed => 3,
        BadStep::Untrusted(_)
        | BadStep::AnotherRoom
        | BadStep::OutOfOrder { .. }
        | BadStep::BrokenChain
        | BadStep::TimeBack
        | BadStep::Text
        | BadStep::Times
        | BadStep::Sums
        | BadStep::FrozenLate => 0,
    }
}

fn take_bucket(
    buckets: &mut Buckets,
    keys: &domain::paseto::TrustedKeys,
    line: &str,
    steps: &Steps,
    lists: &Lists,
) -> Result<(), String> {
    let at = buckets.len();
    let (bucket, hash) =
        BucketDocument::verify(keys, line).map_err(|why| format!("line {at}: {why}"))?;
    let id = bucket.id;
    if !steps.chain.is_of(&bucket.campaign, &bucket.cohort) {
        return Err(format!("bucket {id} is another room's"));
    }
    if usize::try_from(id) != Ok(at) {
        return Err(format!("bucket {id} stands where {at} should"));
    }
    buckets
        .learn(&bucket, hash)
        .map_err(|why| format!("bucket {id}: {why}"))?;
    if let (0, Some(freeze)) = (id, &steps.freeze) {
        same("the size of bucket 0", bucket.size, freeze.n0)?;
        if bucket.regions != freeze.regions {
            return Err("bucket 0 has other regions than the frozen list".to_owned());
        }
    }
    if let (Some(root), Some(list)) = (bucket.list_root, lists.published(id)?) {
        same(&format!("the list root of bucket {id}"), list.root, root)?;
    }
    Ok(())
}

/// The room documents so far.
#[derive(Default)]
struct Rooms {
    last: Option<(Room, Bytes32)>,
    count: u64,
}

impl Rooms {
    fn take(
        &mut self,
        keys: &domain::paseto::TrustedKeys,
        line: &str,
        steps: &Steps,
        buckets: &Buckets,
    ) -> Result<(), String> {
        let room =
            Room::verify(keys, line).map_err(|why| format!("document {}: {why}", self.count))?;
        let version = room.version;
        let bad = |why: &str| Err(format!("version {version} {why}"));
        if !steps.chain.is_of(&room.campaign, &room.cohort) {
            return bad("is another room's");
        }
        if version == 0 || (version == 1) != room.prev_hash.is_none() {
            return bad("does not name the version before it");
        }
        if let Some((old, hash)) = &self.last {
            if version <= old.version {
                return bad("is not newer than the one before");
            }
            if version == old.version + 1 && room.prev_hash != Some(*hash) {
                return bad("does not follow the one before");
            }
            room.follows(old)
                .map_err(|why| format!("version {version}: {why}"))?;
            for (region, before) in &old.regions {
                if room
                    .regions
                    .get(region)
                    .is_none_or(|now| now.f0 < before.f0)
                {
                    return Err(format!(
                        "version {version} moves the frontier of {region} back"
                    ));
                }
            }
        }
        if !steps.draws.contains(&room.draw) {
            return bad("tells of another draw than the steps");
        }
        let open = matches!(
            room.phase,
            Phase::Open | Phase::Paused | Phase::Exhausted | Phase::Ended
        );
        if open && room.draw.final_seed.is_none() {
            return bad("is open without a draw");
        }
        match (room.last_closed_bucket, room.last_bucket_hash) {
            (None, None) => {}
            (Some(id), hash) if hash.is_some() && buckets.hash(id) == hash => {}
            _ => return bad("tells of other buckets than those published"),
        }
        self.last = Some((room, Bytes32::sha256(line)));
        self.count += 1;
        Ok(())
    }

    fn finish(self, steps: &Steps) -> Result<String, String> {
        let (room, _) = self.last.ok_or("there are none")?;
        if room.draw.final_seed != steps.chain.draw().final_seed {
            return Err("the last document does not know the draw".to_owned());
        }
        Ok(format!(
            "{} documents up to version {}, none changes draw or buckets",
            self.count, room.version
        ))
    }
}

// === impl Proven ===

impl Proven {
    fn ordinal(&self, place: &Place) -> Option<u64> {
        let bucket = self.buckets.get(place.bucket)?;
        Some(ordinal(
            bucket.before,
            bucket.size,
            self.draw_key.draw(place),
        ))
    }

    fn place(&self, ticket: &str, bucket: u32) -> anyhow::Result<String> {
        let mut bytes = [0; 16];
        read_hex(ticket, &mut bytes)
            .map_err(|_| anyhow::anyhow!("--ticket must be 32 lower-case hex digits"))?;
        let place = Place {
            bucket,
            ticket: DrawTicket(bytes),
        };
        let ordinal = self
            .ordinal(&place)
            .with_context(|| format!("bucket {bucket} is not closed"))?;
        let listed = self.lists.prove(&place).map_err(anyhow::Error::msg)?;
        let note = match listed {
            Some(Some(index)) => format!("at index {index} of its bucket's list"),
            Some(None) => anyhow::bail!("the ticket is not in the list of bucket {bucket}"),
            None => "its bucket's list is not published".to_owned(),
        };
        Ok(format!("ordinal {ordinal} (bucket {bucket}, {note})"))
    }

    fn write_ordinals(&self, out: &mut impl Write) -> anyhow::Result<()> {
        for bucket in self.lists.ids() {
            let written = self.lists.each(bucket, |ticket| {
                let place = Place { bucket, ticket };
                let ordinal = self
                    .ordinal(&place)
                    .ok_or("a list of a bucket that is not closed")?;
                writeln!(
                    out,
                    "{bucket} {:032x} {ordinal}",
                    u128::from_be_bytes(ticket.0)
                )
                .map_err(text)
            });
            written.map_err(anyhow::Error::msg)?;
        }
        Ok(out.flush()?)
    }
}

// === impl Findings ===

impl Findings {
    fn take<T>(
        &mut self,
        name: &'static str,
        check: impl FnOnce() -> Result<(T, String), String>,
    ) -> Option<T> {
        match check() {
            Ok((found, detail)) => {
                self.0.push((name, Ok(detail)));
                Some(found)
            }
            Err(problem) => {
                self.0.push((name, Err(problem)));
                None
            }
        }
    }
}

fn same<T: PartialEq + std::fmt::Display>(what: &str, found: T, told: T) -> Result<(), String> {
    if found == told {
        Ok(())
    } else {
        Err(format!("{what} is {found}, and was published as {told}"))
    }
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, String> {
    std::fs::read(folder.join(name)).map_err(|why| format!("{name} cannot be read: {why}"))
}

fn text(why: impl std::fmt::Display) -> String {
    why.to_string()
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
