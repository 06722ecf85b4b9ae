//! A gateway with the keys, rooms and owners that a test needs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use domain::paseto::SigningKeyWithId;
use domain::permit::Permit;
use domain::place::{DrawTicket, Place};
use domain::room::{BucketDocument, Bytes32, Frontier, Phase, Room, bucket_key};
use domain::{PersonId, Refusal, Serial};
use ed25519_dalek::SigningKey;
use gateway::callers::Callers;
use gateway::shedding::{Bounds, Limit};
use gateway::{Host, Parts, Shedding, WebSettings};
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::{BookRequest, BookResponse};
use proto::room::GetRoomRequest;
use proto::room::room_service_client::RoomServiceClient;
use proto::status::{Refused, read};
use runtime::keyspace::Keyspace;
use runtime::metrics::Registry;
use runtime::secret::Secret;
use runtime::transport::{ClientSettings, Limits, Listener, ServerSettings, connect};
use runtime::trusted_keys::{TrustedKeysFile, render};
use runtime::{Clock, Drain, OnExit, Readiness, Tasks};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::fake_inventory::FakeInventory;

pub(crate) const SECRET: &str = "shared-by-all-parts";
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A gateway that serves the region `seoul`.
pub(crate) struct Setup {
    pub(crate) keyspace: Keyspace,
    pub(crate) addr: SocketAddr,
    pub(crate) channel: Channel,
    pub(crate) host: Host,
    /// Where its pages are, if it has any.
    pub(crate) pages: Option<SocketAddr>,
    key: SigningKeyWithId,
    _folder: tempfile::TempDir,
}

/// Bounds that no test meets by accident.
pub(crate) fn wide() -> Shedding {
    let limit = Limit::new(10_000, Duration::from_secs(10));
    Shedding {
        commands: limit,
        permits: limit,
        reads: limit,
        back_end: Bounds {
            floor: 1_000,
            ceiling: 10_000,
            calm: Duration::from_secs(10),
            target: Duration::from_secs(10),
        },
    }
}

/// A process of its own, as far as a gateway can tell.
fn host() -> Host {
    let readiness = Readiness::new();
    let drain = Drain::new(
        runtime::drain::Settings {
            notice: Duration::ZERO,
            deadline: Duration::from_secs(5),
        },
        readiness.clone(),
    );
    Host {
        tasks: Tasks::new(drain.clone()),
        drain,
        readiness,
        registry: Registry::new(),
        clock: Clock::system(),
    }
}

impl Setup {
    pub(crate) async fn start() -> Self {
        Self::with(wide()).await
    }

    pub(crate) async fn with(shedding: Shedding) -> Self {
        Self::made(shedding, None).await
    }

    /// One with pages on a port of their own.
    pub(crate) async fn start_with_pages(settings: WebSettings) -> Self {
        Self::made(wide(), Some(settings)).await
    }

    async fn made(shedding: Shedding, web: Option<WebSettings>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = SigningKeyWithId::new("k1", SigningKey::from_bytes(&[7; 32]));
        let path = folder.path().join("keys.json");
        let public = render([("k1", key.verifying_key().to_bytes())]);
        std::fs::write(&path, public).expect("writable");
        let keys = TrustedKeysFile::open(&path).expect("good keys");
        let host = host();
        let keyspace = Keyspace::local(None).expect("in memory");
        let parts = Parts {
            keyspace: keyspace.clone(),
            instance: "gateway-1".parse().expect("slug"),
            regions: vec!["seoul".parse().expect("slug")],
            internal_key: Secret::new(SECRET),
            page_key: Secret::new("fleet"),
            permit_keys: keys.clone(),
            room_keys: keys,
            callers: Callers::believed(),
            services: None,
            channels_per_owner: 2,
            shedding,
            watchers_max: 10,
            verify_places: true,
        };
        let gateway = gateway::start(parts, &host).expect("starts");
        let pages = match &web {
            Some(web) => Some(
                gateway
                    .pages(web)
                    .start(web, &host)
                    .await
                    .expect("a free port"),
            ),
            None => None,
        };
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .expect("a free port");
        let addr = listener.local_addr();
        let settings = ServerSettings {
            listen: addr,
            tls: None,
            limits: Limits::default(),
        };
        host.tasks.spawn("gateway", OnExit::Log, async move {
            gateway.serve(listener, &settings, None).await.map(|_| ())
        });
        let channel =
            connect(&addr.to_string(), None, &ClientSettings::default()).expect("an address");
        Self {
            keyspace,
            addr,
            channel,
            host,
            pages,
            key,
            _folder: folder,
        }
    }

    /// A gateway with one inventory that decides shard 0 with clinic c1 and slot 1.
    pub(crate) async fn with_owner() -> (Self, FakeInventory) {
        let it = Self::start().await;
        let owner = FakeInventory::start().await;
        owner.own(0, 1, "c1", 1);
        it.member("i1", owner.addr, false).await;
        it.owner(0, 1, owner.addr).await;
        it.ready().await;
        (it, owner)
    }

    pub(crate) async fn member(&self, instance: &str, addr: SocketAddr, draining: bool) {
        let value = serde_json::json!({
            "addr": addr.to_string(), "failure_domain": "r1", "build": "test", "draining": draining,
        });
        self.put(
            format!("/doseline/seoul/member/{instance}"),
            value.to_string(),
        )
        .await;
    }

    pub(crate) async fn owner(&self, shard: u32, epoch: u64, addr: SocketAddr) {
        let value = serde_json::json!({
            "instance": "i", "addr": addr.to_string(), "epoch": epoch, "state": "ACTIVE",
        });
        self.put(
            format!("/doseline/seoul/shard/{shard}/owner"),
            value.to_string(),
        )
        .await;
    }

    pub(crate) async fn identity(&self, instance: &str, addr: SocketAddr) {
        let value =
            serde_json::json!({"addr": addr.to_string(), "build": "test", "draining": false});
        self.put(
            format!("/doseline/identity/member/{instance}"),
            value.to_string(),
        )
        .await;
    }

    /// Writes a room and waits until the gateway serves it.
    pub(crate) async fn room(&self, version: u64, phase: Phase, frontier: u64) {
        let line = Frontier {
            f0: frontier,
            per_kilosecond: 0,
            ttl_ms: 0,
            f_end: frontier,
            ..Frontier::default()
        };
        let (campaign, cohort) = (
            "kr".parse().expect("slug"),
            "fifties".parse().expect("slug"),
        );
        let mut room = Room::lobby(campaign, cohort, []);
        room.version = version;
        room.phase = phase;
        room.draw.final_seed = Some(Bytes32([0x11; 32]));
        room.last_closed_bucket = Some(0);
        room.regions.insert("seoul".parse().expect("slug"), line);
        let bucket = BucketDocument {
            campaign: room.campaign.clone(),
            cohort: room.cohort.clone(),
            id: 0,
            before: 0,
            size: 1_000,
            regions: [("seoul".parse().expect("slug"), 1_000)].into(),
            list_root: None,
            prev_hash: None,
        };
        // Before the room, so that whoever sees the room served knows its bucket.
        let key = bucket_key(&room.campaign, &room.cohort, 0);
        self.put(key, bucket.sign(&self.key)).await;
        let document = room.sign(&self.key);
        self.put("/doseline/room/kr/fifties".to_owned(), document.clone())
            .await;
        let client = RoomServiceClient::new(self.channel.clone());
        await_until("the room is served", async || {
            let ask = GetRoomRequest {
                campaign: "kr".to_owned(),
                cohort: "fifties".to_owned(),
            };
            let served = client.clone().get_room(ask).await;
            served.is_ok_and(|served| served.get_ref().document == document)
        })
        .await;
    }

    pub(crate) async fn put(&self, key: String, value: String) {
        self.keyspace.put(key, value).await.expect("written");
    }

    /// Waits until the gateway says that it is ready.
    pub(crate) async fn ready(&self) {
        let ready = self.host.readiness.ready();
        tokio::time::timeout(WAIT_MAX, ready)
            .await
            .expect("ready within ten seconds");
    }

    /// A permit of the calling system `dev`.
    pub(crate) fn permit(&self) -> String {
        self.permit_of("dev")
    }

    pub(crate) fn permit_of(&self, caller: &str) -> String {
        let now = Clock::system().wall();
        Permit {
            person: PersonId::from_bytes([1; 16]),
            campaign: "kr".parse().expect("slug"),
            cohort: "fifties".parse().expect("slug"),
            region: "seoul".parse().expect("slug"),
            serial: Serial(1),
            place: Place {
                bucket: 0,
                ticket: DrawTicket([9; 16]),
            },
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(600)),
            caller: caller.parse().expect("slug"),
        }
        .sign(&self.key)
    }

    /// A booking of slot 1 of clinic c1.
    pub(crate) fn booking(&self) -> BookRequest {
        BookRequest {
            permit: self.permit(),
            request_id: uuid::Uuid::new_v4().to_string(),
            claim_version: 0,
            slots: vec!["regions/seoul/clinics/c1/slots/1".to_owned()],
        }
    }

    pub(crate) fn bookings(&self) -> BookingServiceClient<Channel> {
        BookingServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn book(&self, request: BookRequest) -> Result<BookResponse, Status> {
        self.book_within(request, Duration::from_secs(5)).await
    }

    pub(crate) async fn book_within(
        &self,
        request: BookRequest,
        within: Duration,
    ) -> Result<BookResponse, Status> {
        let mut request = Request::new(request);
        request.set_timeout(within);
        self.bookings()
            .book(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

/// The refusal in a status.
pub(crate) fn refusal(status: &Status) -> Refusal {
    details(status).refusal
}

/// A refusal with its details.
pub(crate) fn details(status: &Status) -> Refused {
    read(status).unwrap_or_else(|| panic!("no reason in {status:?}"))
}

/// Waits for a state.
pub(crate) async fn await_until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(WAIT_MAX, waiting).await;
    assert!(ended.is_ok(), "not within ten seconds: {what}");
}
