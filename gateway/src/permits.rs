//! Brings permit requests to identity: any member can answer, another one is asked when one does not.
//!
//! Invariant: an answer of identity is passed on as it is; only silence and UNAVAILABLE are asked again, which is
//! safe because issuing and the steps of a change of region are idempotent per person, campaign and serial.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::Refusal;
use futures::future::join_all;
use proto::doorkeeper::ReportLoadRequest;
use proto::doorkeeper::doorkeeper_service_client::DoorkeeperServiceClient;
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::identity::{IssuePermitRequest, IssuePermitResponse};
use proto::regions::region_change_service_client::RegionChangeServiceClient;
use proto::room::room_service_client::RoomServiceClient;
use proto::status::{read, refuse};
use runtime::keyspace::{Entry, Keyspace};
use runtime::transport::normalised;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::callers::{CALLER_HEADER, Caller};
use crate::metrics::{GatewayMetrics, Retry};
use crate::routing::{Addr, Backoff, Connector};
use crate::shedding::{Class, Gates, Heard, Limiter};

const PREFIX: &str = "/doseline/identity/member/";
const WAIT_FIRST: Duration = Duration::from_millis(20);
const WAIT_LONGEST: Duration = Duration::from_millis(250);
/// A member that is silent for this long is left for another; issuing takes milliseconds.
const MEMBER_WITHIN: Duration = Duration::from_secs(2);
/// One h2 connection is one lock; two keep both processors of a small machine busy.
const CHANNELS_EACH: usize = 2;

/// Identity's members. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Permits {
    members: Arc<ArcSwap<Members>>,
    changes: watch::Sender<u64>,
    gates: Gates,
    metrics: GatewayMetrics,
    connector: Connector,
}

#[derive(Default)]
struct Members {
    /// By address, so that a channel outlives changes of other members.
    all: BTreeMap<Addr, Member>,
    staying: Vec<Addr>,
}

/// A member, as long as it is known.
#[derive(Clone)]
struct Member {
    channels: [Channel; CHANNELS_EACH],
    limiter: Arc<Limiter>,
}

/// What makes a request of ours one.
pub(crate) struct Signed {
    metadata: MetadataMap,
    deadline: Instant,
}

/// The part of a member's value that a gateway uses.
#[derive(Deserialize)]
struct MemberValue {
    addr: String,
    draining: bool,
}

impl Permits {
    pub(crate) fn new(connector: Connector, gates: Gates, metrics: GatewayMetrics) -> Self {
        Self {
            members: Arc::default(),
            changes: watch::Sender::new(0),
            gates,
            metrics,
            connector,
        }
    }

    /// Asks identity for a permit until `deadline`.
    pub(crate) async fn issue(
        &self,
        caller: &Caller,
        request: IssuePermitRequest,
        deadline: Instant,
    ) -> Result<Response<IssuePermitResponse>, Status> {
        let attempts = self.attempts(caller, &request, deadline);
        // Issuing again gives the same permit: a caller who waited in vain just asks again.
        timeout_at(deadline, attempts)
            .await
            .unwrap_or_else(|_| Err(refuse(Refusal::OutcomeUnknown)))
    }

    async fn attempts(
        &self,
        caller: &Caller,
        request: &IssuePermitRequest,
        deadline: Instant,
    ) -> Result<Response<IssuePermitResponse>, Status> {
        let mut changes = self.changes.subscribe();
        let mut waits = Backoff::new(WAIT_FIRST, WAIT_LONGEST);
        let mut at: usize = rand::random_range(0..1_024);
        let (mut let_in, mut full) = (false, 0);
        loop {
            changes.mark_unchanged();
            let members = self.members.load_full();
            let next = members.next(at);
            at += 1;
            if let Some((member, channel)) = next {
                let Some(place) = member.limiter.enter(let_in) else {
                    full += 1;
                    if full < members.in_turn() {
                        self.metrics.retried(Retry::Full);
                        continue;
                    }
                    return Err(self.gates.turn_away(Class::Permits).into());
                };
                let_in = true;
                let began = Instant::now();
                let asked = self.ask(channel, caller, request, deadline);
                let within = (began + MEMBER_WITHIN).min(deadline);
                match timeout_at(within, asked).await {
                    Ok(Ok(answer)) => {
                        self.gates.waited(Class::Permits, began.elapsed());
                        place.answered(Heard::Decided, began);
                        return Ok(Response::new(answer.into_inner()));
                    }
                    Ok(Err(status)) if !worth_another(&status) => {
                        place.answered(load_told_by(&status), began);
                        return Err(passed_on(&status));
                    }
                    Ok(Err(_)) | Err(_) => self.metrics.retried(Retry::Identity),
                }
            }
            // Without members, a change of them is worth waiting for.
            let _ = tokio::time::timeout(waits.step(), changes.changed()).await;
        }
    }

    async fn ask(
        &self,
        channel: Channel,
        caller: &Caller,
        request: &IssuePermitRequest,
        deadline: Instant,
    ) -> Result<Response<IssuePermitResponse>, Status> {
        let signed = Signed {
            metadata: self.signed(caller)?,
            deadline,
        };
        let request = signed.with(request.clone());
        IdentityServiceClient::new(channel)
            .issue_permit(request)
            .await
            .map_err(normalised)
    }

    /// Asks a member for what only identity's store knows, and another one when it does not answer. `ask` gets a client
    /// and what makes its request.
    pub(crate) async fn record<T, F>(
        &self,
        caller: &Caller,
        deadline: Instant,
        ask: impl Fn(RoomServiceClient<Channel>, Signed) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let ask = |channel, signed| ask(RoomServiceClient::new(channel), signed);
        self.any_member(caller, deadline, Refusal::Unavailable, ask)
            .await
    }

    /// Takes a step of a change of region at a member, and at another one when it does not answer: each step may be
    /// repeated.
    pub(crate) async fn region_change<T, F>(
        &self,
        caller: &Caller,
        deadline: Instant,
        ask: impl Fn(RegionChangeServiceClient<Channel>, Signed) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let ask = |channel, signed: Signed| {
            let patience = signed.patience(MEMBER_WITHIN);
            let asked = ask(RegionChangeServiceClient::new(channel), signed);
            async move {
                let silent = |_| Err(Status::deadline_exceeded("a member is silent"));
                timeout_at(patience, asked).await.unwrap_or_else(silent)
            }
        };
        self.any_member(caller, deadline, Refusal::OutcomeUnknown, ask)
            .await
    }

    async fn any_member<T, F>(
        &self,
        caller: &Caller,
        deadline: Instant,
        too_late: Refusal,
        ask: impl Fn(Channel, Signed) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempts = async {
            let mut waits = Backoff::new(WAIT_FIRST, WAIT_LONGEST);
            let mut at: usize = rand::random_range(0..1_024);
            loop {
                let members = self.members.load_full();
                let next = members.next(at);
                at += 1;
                if let Some((_, channel)) = next {
                    let signed = Signed {
                        metadata: self.signed(caller)?,
                        deadline,
                    };
                    match ask(channel, signed).await.map_err(normalised) {
                        Ok(answer) => return Ok(Response::new(answer.into_inner())),
                        Err(status) if !worth_another(&status) => return Err(passed_on(&status)),
                        Err(_) => self.metrics.retried(Retry::Identity),
                    }
                }
                tokio::time::sleep(waits.step()).await;
            }
        };
        let answer = timeout_at(deadline, attempts).await;
        answer.unwrap_or_else(|_| Err(refuse(too_late)))
    }

    fn signed(&self, caller: &Caller) -> Result<MetadataMap, Status> {
        let mut metadata = MetadataMap::new();
        self.connector.internal().sign(&mut metadata);
        let system = MetadataValue::try_from(caller.system.as_str())
            .map_err(|_| refuse(Refusal::CallerUnknown))?;
        metadata.insert(CALLER_HEADER, system);
        runtime::telemetry::inject(&mut metadata);
        Ok(metadata)
    }

    fn take(&self, entries: &BTreeMap<String, Entry>) {
        let before = self.members.load_full();
        let mut after = Members::default();
        for entry in entries.values() {
            let Ok(value) = serde_json::from_slice::<MemberValue>(&entry.value) else {
                tracing::warn!(key = entry.key, "a key has a value that is not understood");
                continue;
            };
            let addr = Addr::from(value.addr);
            let known = before.all.get(&addr).cloned();
            let member = match known.map_or_else(|| self.member(&addr), Ok) {
                Ok(member) => member,
                Err(error) => {
                    let error = runtime::fields::chain(&error);
                    tracing::error!(
                        error,
                        "an identity member announced an address that is none"
                    );
                    continue;
                }
            };
            if !value.draining {
                after.staying.push(Arc::clone(&addr));
            }
            after.all.insert(addr, member);
        }
        self.members.store(Arc::new(after));
        self.changes.send_modify(|count| *count += 1);
    }

    fn member(&self, addr: &Addr) -> Result<Member, runtime::transport::Fault> {
        Ok(Member {
            channels: [self.connector.channel(addr)?, self.connector.channel(addr)?],
            limiter: self.gates.back_ends(Class::Permits).limiter(),
        })
    }

    /// Tells every member how much this gateway has to do; whoever does not answer in time is told the next time.
    pub(crate) async fn tell(&self, report: &ReportLoadRequest, within: Duration) {
        let members = self.members.load_full();
        let tells = members.all.values().map(|member| {
            let mut metadata = MetadataMap::new();
            self.connector.internal().sign(&mut metadata);
            let signed = Signed {
                metadata,
                deadline: Instant::now() + within,
            };
            let request = signed.with(report.clone());
            let mut client = DoorkeeperServiceClient::new(member.channels[0].clone());
            async move { tokio::time::timeout(within, client.report_load(request)).await }
        });
        for told in join_all(tells).await {
            match told.map(|told| told.map_err(normalised)) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a report of load was not taken"),
                Err(_) => tracing::debug!("a report of load was not taken in time"),
            }
        }
    }
}

impl Signed {
    /// Until when to wait for an answer, at most `within` from now.
    fn patience(&self, within: Duration) -> Instant {
        (Instant::now() + within).min(self.deadline)
    }

    /// A request that ends in time.
    pub(crate) fn with<T>(self, message: T) -> Request<T> {
        let deadline = self.deadline;
        let mut request = self.endless(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        request
    }

    /// A request whose answer streams for as long as it takes.
    pub(crate) fn endless<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata;
        request
    }
}

impl Members {
    /// Members in turns, those that stay before those that go; then their channels in turns.
    fn next(&self, at: usize) -> Option<(&Member, Channel)> {
        let member = if self.staying.is_empty() {
            self.all.values().nth(at % self.all.len().max(1))
        } else {
            self.all.get(&self.staying[at % self.staying.len()])
        }?;
        let turn = at / self.staying.len().max(1);
        Some((member, member.channels[turn % CHANNELS_EACH].clone()))
    }

    /// How many take turns.
    fn in_turn(&self) -> usize {
        if self.staying.is_empty() {
            self.all.len()
        } else {
            self.staying.len()
        }
    }
}

/// What a refusal says about the load of who gave it.
fn load_told_by(status: &Status) -> Heard {
    match read(status).map(|refused| refused.refusal) {
        Some(Refusal::Overloaded) => Heard::Refused,
        _ => Heard::Nothing,
    }
}

/// Identity did not decide: it is away, going, or slow.
fn worth_another(status: &Status) -> bool {
    match read(status).map(|refused| refused.refusal) {
        Some(refusal) => refusal == Refusal::Unavailable,
        None => matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        ),
    }
}

/// A refusal of ours goes on with its details; anything else would tell callers about our insides.
pub(crate) fn passed_on(status: &Status) -> Status {
    match read(status) {
        Some(refused) => refused.into(),
        None => {
            tracing::error!(
                code = status.code().description(),
                "identity failed in a way of its own"
            );
            refuse(Refusal::Unavailable)
        }
    }
}

/// Follows identity's members until it is dropped.
pub(crate) async fn watch_identity(permits: Permits, keyspace: Keyspace) -> Infallible {
    let mut mirror = keyspace.mirror(PREFIX);
    loop {
        if mirror.listed() {
            permits.take(&mirror.snapshot());
        }
        mirror.changed().await;
    }
}
