//! Many people wait at two gateways from one process: what gateways remember of them, and whether a killed gateway or a
//! killed doorkeeper costs anybody a place.
//!
//! Everybody asks when they were told to ask, now this gateway and now that. Gateways follow a line each from the moment
//! they heard of it, so that one may be a moment behind the other: who is further back by no more than the line moves in
//! that time has seen an older view of the same place, and is counted as such. A place is lost when somebody is further
//! back than that, or when a permit asked for again carries another place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use proto::room::room_service_client::RoomServiceClient;
use proto::room::{GetPlaceRequest, GetPlaceResponse};
use system_tests::town::{Caller, Options, Town};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Status};

use crate::load::{CONNECTIONS, IN_FLIGHT, closed_loop};
use crate::say;

/// Everybody's first question is spread over this time, as people open their apps.
const FIRST_OVER: Duration = Duration::from_secs(120);
/// How long everybody waits after that.
const WAITED: Duration = Duration::from_secs(120);
/// When a gateway and the doorkeeper are killed, after everybody has asked once.
const GATEWAY_KILLED: Duration = Duration::from_secs(30);
const DOORKEEPER_KILLED: Duration = Duration::from_secs(75);
/// Seconds that the whole line would take.
const LINE_SECS: usize = 5_000;
/// Permits asked for together.
const PERMITS_AT_ONCE: usize = 50_000;
/// People who ask for their permit again at the end.
const ASKED_AGAIN: usize = 2_000;
/// Calls under way: more would only wait in the generator.
const CALLS: usize = 256;
/// After an error that says nothing of a time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
/// Those admitted do not book here; they only look whether they still are.
const LOOKS_AGAIN: Duration = Duration::from_secs(20);
/// How far views may be apart, as for the retries of a gateway that knows more than an inventory.
const VIEWS_APART_SECS: u64 = 2;
const TICK: Duration = Duration::from_millis(5);

/// How one crowd waited.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    people: usize,
    polls: usize,
    /// Polls a second once everybody had asked once.
    polls_per_second: f64,
    errors: usize,
    admitted: usize,
    lost: usize,
    /// Answers from a view that was behind one seen before, and the furthest of them, in places.
    behind: usize,
    behind_most: u64,
    never_answered: usize,
    other_permits: usize,
    /// Bytes of memory of the gateway that was not killed: before anybody came, and the most while they waited.
    before: u64,
    most: u64,
    latency_p50: Duration,
    latency_p99: Duration,
    late_p99: Duration,
}

// === impl Waited ===

impl Waited {
    /// Whether anybody lost a place.
    pub(crate) fn lost_any(&self) -> bool {
        self.lost + self.other_permits + self.never_answered > 0
    }
}

#[derive(Clone, Copy, Default)]
struct Waiter {
    /// The best position told; 0 = admitted.
    position: Option<u64>,
}

/// What came of one question.
struct Asked {
    who: usize,
    due: Instant,
    sent: Instant,
    answered: Instant,
    answer: Result<GetPlaceResponse, Status>,
}

/// Has `people` wait, once.
pub(crate) async fn run(folder: &Path, people: usize) -> anyhow::Result<Waited> {
    let options = Options {
        shards: 2,
        clinics: 40,
        // Nobody books: the line must not end for want of places.
        places: 100_000,
        people: 0,
        gateways: 2,
        trusting_gateways: 0,
        inventories: 1,
        identities: 2,
        bookings_per_second_max: 0,
    };
    let mut town = Town::closed(folder, options).await?;
    let permits = permits(&town, people).await?;
    let before = town.cluster.gateways[1].process.resident_bytes()?;
    let rate = u64::try_from(people * 1_000 / LINE_SECS)?.max(1_000);
    town.open_room(rate).await?;
    let (answers, asked) = mpsc::unbounded_channel();
    let crowd = Crowd::new(&town, permits, answers, rate)?;
    let mut waited = crowd.wait(&mut town, asked).await?;
    waited.before = before;
    waited.other_permits = other_permits(&town, people, &crowd.permits).await?;
    Ok(waited)
}

async fn permits(town: &Town, people: usize) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::with_capacity(people);
    while all.len() < people {
        let some = all.len()..people.min(all.len() + PERMITS_AT_ONCE);
        all.extend(issue(town, some).await?);
    }
    Ok(all)
}

async fn issue(town: &Town, people: std::ops::Range<usize>) -> anyhow::Result<Vec<String>> {
    let (requests, callers) = (town.permit_requests(people)?, town.callers.clone());
    let calls = requests.len();
    let (_, permits) = closed_loop(IN_FLIGHT, calls, move |number| {
        let caller = callers[number % callers.len()].clone();
        let request = requests[number].clone();
        async move { caller.permit(request).await }
    })
    .await?;
    Ok(permits)
}

/// Asks for some permits again: how many of them carry another place than before.
async fn other_permits(town: &Town, people: usize, permits: &[String]) -> anyhow::Result<usize> {
    let again = issue(town, 0..people.min(ASKED_AGAIN)).await?;
    let pairs = again.iter().zip(permits);
    let differ = pairs.map(|(new, old)| Ok::<_, anyhow::Error>(place(new)? != place(old)?));
    let differ = differ.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(differ.into_iter().filter(|differs| *differs).count())
}

/// The place in a permit's signed text: bucket and ticket, and whose.
fn place(permit: &str) -> anyhow::Result<[serde_json::Value; 3]> {
    use base64::Engine as _;
    let payload = permit.split('.').nth(2).context("a permit has a payload")?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?;
    let signed = bytes.len().checked_sub(64).context("and a signature")?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes[..signed])?;
    Ok(["person", "place", "serial"].map(|name| claims[name].clone()))
}

/// Everybody who waits.
struct Crowd {
    permits: Arc<Vec<String>>,
    gateways: Arc<Vec<Vec<Caller>>>,
    calls: Arc<Semaphore>,
    answers: mpsc::UnboundedSender<Asked>,
    /// People let in a second.
    rate: u64,
}

// === impl Crowd ===

impl Crowd {
    fn new(
        town: &Town,
        permits: Vec<String>,
        answers: mpsc::UnboundedSender<Asked>,
        rate: u64,
    ) -> anyhow::Result<Self> {
        let gateways = town.cluster.gateways.iter();
        let lines = gateways.map(|part| {
            let lines = (0..CONNECTIONS).map(|_| Caller::of(&part.addr));
            lines.collect::<anyhow::Result<Vec<_>>>()
        });
        Ok(Self {
            permits: Arc::new(permits),
            gateways: Arc::new(lines.collect::<anyhow::Result<_>>()?),
            calls: Arc::new(Semaphore::new(CALLS)),
            answers,
            rate,
        })
    }

    /// Everybody asks, first spread over some time and then as told, while things are killed.
    async fn wait(
        &self,
        town: &mut Town,
        mut asked: mpsc::UnboundedReceiver<Asked>,
    ) -> anyhow::Result<Waited> {
        let began = Instant::now();
        let all_asked = began + FIRST_OVER;
        let people = self.permits.len();
        let first = |who: usize| FIRST_OVER.mul_f64(who as f64 / people as f64);
        let mut due: BinaryHeap<Reverse<(Instant, usize)>> = (0..people)
            .map(|who| Reverse((began + first(who), who)))
            .collect();
        let mut tally = Tally::new(people, all_asked, self.rate * VIEWS_APART_SECS);
        let mut kills = Kills::default();
        let mut tick = tokio::time::interval(TICK);
        while Instant::now() < all_asked + WAITED {
            tokio::select! {
                biased;
                Some(one) = asked.recv() => {
                    due.extend(tally.take(one).map(Reverse));
                }
                _ = tick.tick() => {
                    kills.due(town, all_asked).await?;
                    let memory = town.cluster.gateways[1].process.resident_bytes()?;
                    tally.waited.most = tally.waited.most.max(memory);
                }
            }
            let now = Instant::now();
            while let Some(Reverse((at, who))) = due.peek().copied().filter(|one| one.0.0 <= now) {
                if !self.ask(at, who) {
                    break;
                }
                due.pop();
            }
        }
        // Whoever has asked is answered.
        drop(self.calls.acquire_many(u32::try_from(CALLS)?).await?);
        while let Ok(one) = asked.try_recv() {
            tally.take(one);
        }
        anyhow::ensure!(kills.both(), "not both were killed");
        Ok(tally.end())
    }

    /// Asks for somebody's place, unless too many calls are under way.
    fn ask(&self, due: Instant, who: usize) -> bool {
        let Ok(seat) = Arc::clone(&self.calls).try_acquire_owned() else {
            return false;
        };
        let at = rand::random_range(0..self.gateways.len() * CONNECTIONS);
        // Whom a person asks changes from call to call: gateways remember nothing.
        let line = self.gateways[at % self.gateways.len()][at / self.gateways.len()].service();
        let mut request = Request::new(GetPlaceRequest {
            permit: self.permits[who].clone(),
        });
        request.set_timeout(DEADLINE);
        let answers = self.answers.clone();
        tokio::task::spawn(async move {
            let sent = Instant::now();
            let answer = RoomServiceClient::new(line).get_place(request).await;
            // The crowd has gone home.
            let _ = answers.send(Asked {
                who,
                due,
                sent,
                answered: Instant::now(),
                answer: answer.map(tonic::Response::into_inner),
            });
            drop(seat);
        });
        true
    }
}

/// What is killed while people wait, each once.
#[derive(Default)]
struct Kills {
    gateway: bool,
    doorkeeper: bool,
}

// === impl Kills ===

impl Kills {
    async fn due(&mut self, town: &mut Town, all_asked: Instant) -> anyhow::Result<()> {
        let since = Instant::now().saturating_duration_since(all_asked);
        if !self.gateway && since >= GATEWAY_KILLED {
            self.gateway = true;
            let gateway = &mut town.cluster.gateways[0].process;
            gateway.kill()?;
            gateway.restart()?;
            say("killed gateway-0 and started it again")?;
        }
        if !self.doorkeeper && since >= DOORKEEPER_KILLED {
            self.doorkeeper = true;
            let at = town.cluster.doorkeeper().await.context("a doorkeeper")?;
            town.cluster.identities[at].process.kill()?;
            say(&format!("killed identity-{at}, the doorkeeper"))?;
        }
        Ok(())
    }

    fn both(&self) -> bool {
        self.gateway && self.doorkeeper
    }
}

struct Tally {
    waiters: Vec<Waiter>,
    all_asked: Instant,
    /// Places that views may be apart.
    apart: u64,
    waited: Waited,
    steady: usize,
    latency: Histogram<u64>,
    late: Histogram<u64>,
}

// === impl Tally ===

impl Tally {
    fn new(people: usize, all_asked: Instant, apart: u64) -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds and precision are in range")
        };
        Self {
            waiters: vec![Waiter::default(); people],
            all_asked,
            apart,
            waited: Waited {
                people,
                ..Waited::default()
            },
            steady: 0,
            latency: histogram(),
            late: histogram(),
        }
    }

    /// Notes an answer; says when the person asks next, if ever.
    fn take(&mut self, one: Asked) -> Option<(Instant, usize)> {
        let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.waited.polls += 1;
        self.steady += usize::from(one.sent >= self.all_asked);
        self.latency
            .saturating_record(micros(one.answered - one.sent));
        self.late
            .saturating_record(micros(one.sent.saturating_duration_since(one.due)));
        let waiter = &mut self.waiters[one.who];
        let after = match one.answer {
            Err(_) => {
                self.waited.errors += 1;
                AGAIN_AFTER
            }
            Ok(place) => {
                let position = if place.admitted { 0 } else { place.position };
                let best = waiter.position.map_or(position, |old| old.min(position));
                let behind = position - best;
                self.waited.lost += usize::from(behind > self.apart);
                self.waited.behind += usize::from(behind > 0);
                self.waited.behind_most = self.waited.behind_most.max(behind);
                waiter.position = Some(best);
                let told = place
                    .poll_after
                    .and_then(|after| Duration::try_from(after).ok());
                told.unwrap_or(AGAIN_AFTER)
            }
        };
        // Who is admitted looks once more now and then: it stays so.
        let after = if waiter.position == Some(0) {
            after.max(LOOKS_AGAIN)
        } else {
            after
        };
        Some((one.answered + after, one.who))
    }

    fn end(self) -> Waited {
        let at = |histogram: &Histogram<u64>, quantile| {
            Duration::from_micros(histogram.value_at_quantile(quantile))
        };
        Waited {
            polls_per_second: self.steady as f64 / WAITED.as_secs_f64(),
            admitted: self
                .waiters
                .iter()
                .filter(|one| one.position == Some(0))
                .count(),
            never_answered: self
                .waiters
                .iter()
                .filter(|one| one.position.is_none())
                .count(),
            latency_p50: at(&self.latency, 0.5),
            latency_p99: at(&self.latency, 0.99),
            late_p99: at(&self.late, 0.99),
            ..self.waited
        }
    }
}

/// All crowds as a table.
pub(crate) fn table(crowds: &[Waited]) -> String {
    use std::fmt::Write as _;
    let mut out = format!(
        "{:>10}{:>10}{:>9}{:>8}{:>10}{:>7}{:>14}{:>8}{:>9}{:>14}{:>14}{:>10}{:>10}{:>10}\n",
        "waiting",
        "polls",
        "polls/s",
        "errors",
        "admitted",
        "lost",
        "behind (most)",
        "silent",
        "permits",
        "MiB before",
        "MiB most",
        "p50 ms",
        "p99 ms",
        "late p99"
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
    for one in crowds {
        let _ = writeln!(
            out,
            "{:>10}{:>10}{:>9.0}{:>8}{:>10}{:>7}{:>14}{:>8}{:>9}{:>14.1}{:>14.1}{:>10.1}{:>10.1}{:>10.1}",
            one.people,
            one.polls,
            one.polls_per_second,
            one.errors,
            one.admitted,
            one.lost,
            format!("{} ({})", one.behind, one.behind_most),
            one.never_answered,
            one.other_permits,
            mib(one.before),
            mib(one.most),
            ms(one.latency_p50),
            ms(one.latency_p99),
            ms(one.late_p99),
        );
    }
    out.push_str(
        "lost: people who were told a place further back than views may be apart; behind: answers from a view behind one \
         seen before, and by how many places at most; silent: people who never had an answer; permits: asked for again \
         with another place.\nMemory is that of the gateway that was not killed; errors are calls that a killed \
         gateway did not answer, asked again.\n",
    );
    out
}
