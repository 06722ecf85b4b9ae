//! Published documents of a made-up room, good ones and every kind of bad one, for the tests of both audits.

use std::collections::BTreeMap;
use std::path::Path;

use domain::paseto::SigningKeyWithId;
use domain::place::DrawTicket;
use domain::room::draw::{
    Announcement, Beacon, Body, Commit, Draw, Freeze, STEP_PURPOSE, Step, final_seed,
};
use domain::room::list::ListBuilder;
use domain::room::{BucketDocument, Bytes32, Frontier, PURPOSE, Phase, Room};
use domain::{CampaignId, CohortId, RegionId, Timestamp};
use ed25519_dalek::SigningKey;

const SEED: Bytes32 = Bytes32([42; 32]);

/// What is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Story {
    /// People in bucket 0.
    pub people: u64,
    /// People in each late bucket.
    pub late: &'static [u64],
    /// The seed is not revealed in time, and the second source is used.
    pub troubled: bool,
    /// What is wrong with it.
    pub cheat: Option<Cheat>,
}

/// One thing wrong, by somebody who may have the signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cheat {
    /// A signature is off by a bit.
    Signature,
    /// Signed with a key that nobody trusts.
    ForeignKey,
    /// A step signed as if it were a room.
    Purpose,
    /// A field that nobody knows.
    UnknownField,
    /// Another seed than the committed one.
    Seed,
    /// The seed is revealed after its time.
    SeedLate,
    /// A public value that nobody announced.
    Beacon,
    /// The right source, before its announced time.
    BeaconEarly,
    /// The list was frozen when the value was out.
    FrozenLate,
    /// A final seed from nowhere.
    FinalSeed,
    /// The seed was never revealed.
    Skipped,
    /// The commit was made twice.
    Repeated,
    /// A step that names another before it.
    Chain,
    /// A ticket exchanged for one that was not frozen.
    Ghost,
    /// A ticket taken out of the list.
    Erased,
    /// The list is not sorted.
    Unsorted,
    /// One person in bucket 0 and in a late one.
    Twice,
    /// A bucket whose regions do not add up.
    Sums,
    /// A bucket that does not begin where the one before ended.
    Gap,
    /// A closed bucket was replaced.
    Replaced,
    /// The room tells of another draw.
    Redrawn,
    /// The room tells of another bucket.
    Rebucketed,
    /// A frontier moved back.
    MovedBack,
    /// An old room document again.
    Replayed,
    /// The doors open before the draw.
    OpenEarly,
}

/// Every cheat.
pub(crate) const CHEATS: [Cheat; 25] = [
    Cheat::Signature,
    Cheat::ForeignKey,
    Cheat::Purpose,
    Cheat::UnknownField,
    Cheat::Seed,
    Cheat::SeedLate,
    Cheat::Beacon,
    Cheat::BeaconEarly,
    Cheat::FrozenLate,
    Cheat::FinalSeed,
    Cheat::Skipped,
    Cheat::Repeated,
    Cheat::Chain,
    Cheat::Ghost,
    Cheat::Erased,
    Cheat::Unsorted,
    Cheat::Twice,
    Cheat::Sums,
    Cheat::Gap,
    Cheat::Replaced,
    Cheat::Redrawn,
    Cheat::Rebucketed,
    Cheat::MovedBack,
    Cheat::Replayed,
    Cheat::OpenEarly,
];

/// The documents.
struct Published {
    story: Story,
    key: SigningKeyWithId,
    draws: Vec<Draw>,
    steps: Vec<String>,
    buckets: Vec<String>,
    rooms: Vec<String>,
    lists: BTreeMap<u32, Vec<DrawTicket>>,
}

/// Writes a room's published documents into a folder.
pub(crate) fn write(folder: &Path, story: Story) -> std::io::Result<()> {
    let mut it = Published {
        story,
        key: SigningKeyWithId::new("room-1", SigningKey::from_bytes(&[5; 32])),
        draws: vec![Draw::default()],
        steps: Vec::new(),
        buckets: Vec::new(),
        rooms: Vec::new(),
        lists: BTreeMap::new(),
    };
    it.draw_tickets();
    it.take_steps();
    it.close_buckets();
    it.write_rooms();
    it.store(folder)
}

// === impl Published ===

impl Published {
    fn cheats(&self, cheat: Cheat) -> bool {
        self.story.cheat == Some(cheat)
    }

    fn draw_tickets(&mut self) {
        let sizes = std::iter::once(self.story.people).chain(self.story.late.iter().copied());
        let mut person = 0u64;
        for (id, size) in (0u32..).zip(sizes) {
            let mut tickets: Vec<DrawTicket> = (0..size)
                .map(|_| {
                    person += 1;
                    let mut ticket = [0; 16];
                    ticket.copy_from_slice(&Bytes32::sha256(person.to_be_bytes()).0[..16]);
                    DrawTicket(ticket)
                })
                .collect();
            if self.cheats(Cheat::Twice) && id == 1 {
                tickets[0] = self.lists[&0][0];
            }
            tickets.sort_unstable();
            self.lists.insert(id, tickets);
        }
    }

    fn take_steps(&mut self) {
        let at = |secs: i64| Timestamp::from_secs(1_626_000_000 + secs);
        let announced = |source: &str, secs| Announcement {
            source: source.to_owned(),
            round: "9000".to_owned(),
            published_at: Some(at(secs)),
        };
        let commit = Commit {
            seed_hash: Bytes32::sha256(SEED.0),
            beacon: announced("drand quicknet", 300),
            second: Some(announced("동행복권 로또 6/45", 600)),
            reveal_by: at(200),
            code_version: "0.1.0".to_owned(),
        };
        self.step(at(0), Body::Commit(commit.clone()));
        if self.cheats(Cheat::Repeated) {
            self.step(at(1), Body::Commit(commit));
        }
        let frozen = if self.cheats(Cheat::FrozenLate) {
            301
        } else {
            100
        };
        self.step(at(frozen), self.freeze());
        let late = self.story.troubled || self.cheats(Cheat::FrozenLate);
        let (revealed, mut seed) = if late {
            (310, Bytes32::ZERO)
        } else {
            (150, SEED)
        };
        if self.cheats(Cheat::Seed) {
            seed = Bytes32([43; 32]);
        }
        if !self.cheats(Cheat::Skipped) {
            let revealed = if self.cheats(Cheat::SeedLate) {
                250
            } else {
                revealed
            };
            self.step(at(revealed), Body::Reveal { seed });
        }
        let source = match (self.story.troubled, self.cheats(Cheat::Beacon)) {
            (_, true) => "our own dice",
            (true, false) => "동행복권 로또 6/45",
            (false, false) => "drand quicknet",
        };
        let beacon = Beacon {
            source: source.to_owned(),
            round: "9000".to_owned(),
            value: "3 11 15 29 35 44".to_owned(),
        };
        let told = if self.cheats(Cheat::BeaconEarly) {
            299
        } else {
            650
        };
        self.step(at(told), Body::Beacon(beacon));
        let final_seed = self.last_draw().final_seed.unwrap_or(Bytes32::ZERO);
        let final_seed = if self.cheats(Cheat::FinalSeed) {
            Bytes32([1; 32])
        } else {
            final_seed
        };
        self.step(at(700), Body::Doors { final_seed });
    }

    fn freeze(&self) -> Body {
        let tickets = &self.lists[&0];
        let mut list = ListBuilder::new();
        for ticket in tickets {
            list.push(ticket).expect("sorted");
        }
        let n0 = tickets.len() as u64;
        Body::Freeze(Freeze {
            list_root: list.finish().root,
            n0,
            regions: shares(n0),
        })
    }

    /// A step as a cheating operator writes it: whatever it says, signed.
    fn step(&mut self, at: Timestamp, body: Body) {
        let mut draw = self.last_draw();
        let (campaign, cohort) = ids();
        match &body {
            Body::Commit(commit) => draw.commit = Some(commit.clone()),
            Body::Freeze(freeze) => {
                (draw.list_root, draw.n0) = (Some(freeze.list_root), Some(freeze.n0))
            }
            Body::Reveal { seed } => draw.seed = Some(*seed),
            Body::Beacon(beacon) => {
                draw.beacon = Some(beacon.clone());
                draw.final_seed = final_seed(&campaign, &cohort, &draw);
            }
            Body::Doors { .. } => {}
        }
        let number = u32::try_from(self.steps.len()).expect("few") + 1;
        let broken = self.cheats(Cheat::Chain) && number == 3;
        let step = Step {
            campaign,
            cohort,
            number,
            prev_hash: if broken {
                Some(Bytes32::ZERO)
            } else {
                draw.hash
            },
            at,
            body,
        };
        let text = if self.cheats(Cheat::Purpose) && number == 2 {
            self.key
                .sign(&serde_json::to_vec(&step).expect("serialises"), PURPOSE)
        } else if self.cheats(Cheat::UnknownField) && number == 2 {
            let mut value = serde_json::to_value(&step).expect("serialises");
            value["remark"] = "trust me".into();
            self.key.sign(value.to_string().as_bytes(), STEP_PURPOSE)
        } else {
            step.sign(&self.key)
        };
        draw.hash = Some(Bytes32::sha256(&text));
        self.draws.push(draw);
        self.steps.push(text);
    }

    fn last_draw(&self) -> Draw {
        self.draws.last().cloned().unwrap_or_default()
    }

    fn close_buckets(&mut self) {
        let (campaign, cohort) = ids();
        let mut before = 0;
        for (id, tickets) in self.lists.clone() {
            let size = tickets.len() as u64;
            let mut bucket = BucketDocument {
                campaign: campaign.clone(),
                cohort: cohort.clone(),
                id,
                before,
                size,
                regions: shares(size),
                list_root: None,
                prev_hash: self.buckets.last().map(Bytes32::sha256),
            };
            before += size;
            let second = id == 1;
            if second && self.cheats(Cheat::Sums) {
                bucket.regions = shares(size + 1);
            }
            if second && self.cheats(Cheat::Gap) {
                bucket.before += 1;
            }
            let text = bucket.sign(&self.key);
            if id == 2 && self.cheats(Cheat::Replaced) {
                // What bucket 1 was before does not fit the next one any more.
                let mut other: BucketDocument = bucket.clone();
                (other.id, other.before, other.prev_hash) =
                    (1, before - size - self.story.late[0], None);
                other.prev_hash = self.buckets.first().map(Bytes32::sha256);
                (other.size, other.regions) = (
                    self.story.late[0],
                    [(region("jeju"), self.story.late[0])].into(),
                );
                self.buckets[1] = other.sign(&self.key);
            }
            self.buckets.push(text);
        }
    }

    fn write_rooms(&mut self) {
        let (campaign, cohort) = ids();
        let regions = ["jeju", "seoul"].map(region);
        let mut room = Room::lobby(campaign, cohort, regions);
        self.room(&room);
        let early = self.cheats(Cheat::OpenEarly);
        let phases = [
            if early { Phase::Open } else { Phase::Lobby },
            if early { Phase::Open } else { Phase::Frozen },
            Phase::Open,
            Phase::Open,
            Phase::Exhausted,
        ];
        for (at, phase) in phases.into_iter().enumerate() {
            room = room.successor(self.rooms.last().expect("the first"));
            room.phase = phase;
            room.draw = self
                .draws
                .get([1, 2, 5, 5, 5][at])
                .cloned()
                .unwrap_or_else(|| self.last_draw());
            if at >= 1 {
                let last = if at < 3 { 0 } else { self.buckets.len() - 1 };
                room.last_closed_bucket = Some(u32::try_from(last).expect("few"));
                room.last_bucket_hash = Some(Bytes32::sha256(&self.buckets[last]));
            }
            if at >= 2 {
                let f0 = (at as u64 - 2) * 10;
                let line = Frontier {
                    f0,
                    per_kilosecond: 40_000,
                    ttl_ms: 10_000,
                    f_end: self.story.people,
                    left: 100,
                    ..Frontier::default()
                };
                room.regions = ["jeju", "seoul"]
                    .map(|name| (region(name), line.clone()))
                    .into();
            }
            let last = at == phases.len() - 1;
            if last && self.cheats(Cheat::Redrawn) {
                room.draw.final_seed = Some(Bytes32([9; 32]));
            }
            if last && self.cheats(Cheat::Rebucketed) {
                room.last_bucket_hash = Some(Bytes32([9; 32]));
            }
            if last && self.cheats(Cheat::MovedBack) {
                room.regions.insert(region("seoul"), Frontier::default());
            }
            self.room(&room);
        }
        if self.cheats(Cheat::Replayed) {
            self.rooms.push(self.rooms[3].clone());
        }
    }

    fn room(&mut self, room: &Room) {
        self.rooms.push(room.sign(&self.key));
    }

    fn store(mut self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        if self.cheats(Cheat::Signature) {
            let text = self.steps.last_mut().expect("five");
            let at = text.rfind('.').expect("a footer") - 20;
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            text.replace_range(at..=at, other);
        }
        let tickets = self.lists.get_mut(&0).expect("always");
        match self.story.cheat {
            Some(Cheat::Ghost) => {
                tickets.pop();
                tickets.push(DrawTicket([7; 16]));
                tickets.sort_unstable();
            }
            Some(Cheat::Erased) => drop(tickets.pop()),
            Some(Cheat::Unsorted) => tickets.swap(0, 1),
            _ => {}
        }
        for (id, tickets) in &self.lists {
            let lines: String = tickets
                .iter()
                .map(|ticket| format!("{:032x}\n", u128::from_be_bytes(ticket.0)))
                .collect();
            std::fs::write(folder.join(format!("tickets-{id}.txt")), lines)?;
        }
        for (name, lines) in [
            ("steps", &self.steps),
            ("buckets", &self.buckets),
            ("room", &self.rooms),
        ] {
            let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.join(format!("{name}.jsonl")), lines)?;
        }
        let foreign = SigningKey::from_bytes(&[6; 32]).verifying_key();
        let mut key = self.key.verifying_key().to_bytes();
        if self.cheats(Cheat::ForeignKey) {
            key = foreign.to_bytes();
        }
        let keys = runtime::trusted_keys::render([("room-1", key), ("room-0", foreign.to_bytes())]);
        std::fs::write(folder.join("keys.json"), keys)
    }
}

fn ids() -> (CampaignId, CohortId) {
    (
        "kr-2021".parse().expect("slug"),
        "fifties".parse().expect("slug"),
    )
}

fn region(name: &str) -> RegionId {
    name.parse().expect("slug")
}

/// A tenth on the island.
fn shares(people: u64) -> BTreeMap<RegionId, u64> {
    [
        (region("jeju"), people / 10),
        (region("seoul"), people - people / 10),
    ]
    .into()
}
