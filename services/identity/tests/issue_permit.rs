//! A permit from an assertion, over gRPC, as a gateway asks for it; and all the ways to be refused.

use std::sync::Arc;
use std::time::Duration;

use domain::permit::{Permit, Unusable};
use domain::room::Room;
use domain::{Refusal, Timestamp};
use identity::development::AUDIENCE;
use identity::keys::SigningKeys;
use identity::people::People;
use identity::people::sqlite::SqlitePeople;
use jiff::civil::{Date, date};
use proto::admin::{ApplyCampaignRequest, GetCampaignRequest, OpenRoomRequest, PauseRoomRequest};
use proto::identity::{IssuePermitRequest, IssuePermitResponse};
use proto::status;
use runtime::Clock;
use runtime::drain::Cause;
use tonic::{Code, Request, Status};
use world::{INTERNAL_KEY, NOW, World};

#[path = "support/world.rs"]
mod world;

const BORN: Date = date(1965, 2, 28);

async fn start() -> World {
    let mut world = world::start(Clock::manual(NOW), 2, async |folder, boot, metrics| {
        let path = folder.join("people.sqlite");
        let store = SqlitePeople::open(&path, &boot.tasks, boot.clock.clone(), metrics);
        Arc::new(store.expect("opened")) as Arc<dyn People>
    })
    .await;
    let document = serde_json::json!({
        "campaign": "kr-2021",
        "time_zone": "Asia/Seoul",
        "regions": ["busan", "seoul"],
        "cohorts": [
            { "cohort": "fifties", "born_from": "1962-01-01", "born_to": "1971-12-31",
              "opens_at": "2021-07-12T00:00:00+09:00", "permits_from": "2021-07-08" }
        ],
        "rules": { "vaccines": ["moderna"], "dose_interval": { "min_days": 28, "max_days": 42 },
                   "hold_ttl_secs": 300 },
        "last_appointment": "2021-12-31",
        "permit_ttl_secs": 3600
    });
    let apply = ApplyCampaignRequest {
        document: document.to_string(),
        validate_only: false,
    };
    let applied = world.admin.apply_campaign(apply).await.expect("applied");
    assert_eq!(applied.into_inner().version, 1);
    // Every copy of identity follows the documents by itself.
    let ready = async {
        while world
            .ask("app-one", "seoul", "nobody", date(2000, 1, 1))
            .await
            .err()
            .and_then(|s| reason(&s))
            != Some(Refusal::NotEligible)
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ready)
        .await
        .expect("the campaign is followed");
    world
}

fn reason(status: &Status) -> Option<Refusal> {
    status::read(status).map(|refused| refused.refusal)
}

fn request(caller: &str, region: &str, assertion: String) -> Request<IssuePermitRequest> {
    let message = IssuePermitRequest {
        campaign: "kr-2021".to_owned(),
        region: region.to_owned(),
        assertion,
    };
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-doseline-internal", INTERNAL_KEY.parse().expect("ASCII"));
    request
        .metadata_mut()
        .insert("x-doseline-caller", caller.parse().expect("ASCII"));
    request
}

impl World {
    fn assertion(&self, sub: &str, born: Date) -> String {
        self.provider.sign(
            sub,
            born,
            AUDIENCE,
            self.boot.clock.wall(),
            Duration::from_secs(300),
        )
    }

    async fn ask(
        &self,
        caller: &str,
        region: &str,
        sub: &str,
        born: Date,
    ) -> Result<IssuePermitResponse, Status> {
        let request = request(caller, region, self.assertion(sub, born));
        self.identity
            .clone()
            .issue_permit(request)
            .await
            .map(tonic::Response::into_inner)
    }

    async fn refused(&self, request: Request<IssuePermitRequest>) -> (Code, Option<Refusal>) {
        let status = self
            .identity
            .clone()
            .issue_permit(request)
            .await
            .expect_err("refused");
        (status.code(), reason(&status))
    }

    fn read(&self, permit: &str, now: Timestamp) -> Result<Permit, Unusable> {
        let keys = SigningKeys::read(&self.folder.path().join("permit")).expect("keys");
        Permit::verify(&keys.trusted(), permit, now)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_one_place_from_every_device() {
    let world = start().await;
    let first = world
        .ask("app-one", "seoul", "ci-0001", BORN)
        .await
        .expect("issued");
    assert_eq!(
        (first.cohort.as_str(), first.region.as_str()),
        ("fifties", "seoul")
    );
    assert_eq!((first.serial, first.bucket), (1, 0));
    let permit = world.read(&first.permit, NOW).expect("a good permit");
    assert_eq!(permit.caller.as_str(), "app-one");
    assert_eq!(permit.expires_at, NOW.plus(Duration::from_secs(3_600)));
    assert_eq!(
        first.expire_time.expect("told").seconds,
        permit.expires_at.as_secs()
    );

    world.boot.clock.advance(Duration::from_secs(60));
    let again = world
        .ask("app-two", "seoul", "ci-0001", BORN)
        .await
        .expect("issued");
    let renewed = world
        .read(&again.permit, world.boot.clock.wall())
        .expect("a good permit");
    assert_eq!(
        (renewed.person, renewed.place, renewed.serial),
        (permit.person, permit.place, permit.serial)
    );
    assert_eq!(
        renewed.caller.as_str(),
        "app-two",
        "a permit is bound to the system that asked"
    );
    assert!(renewed.expires_at > permit.expires_at);

    let other = world
        .ask("app-one", "seoul", "ci-0002", BORN)
        .await
        .expect("issued");
    let other = world
        .read(&other.permit, world.boot.clock.wall())
        .expect("a good permit");
    assert_ne!(other.person, permit.person);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_why() {
    let world = start().await;
    world
        .ask("app-one", "seoul", "ci-0001", BORN)
        .await
        .expect("issued");
    for (region, born, expected) in [
        ("busan", BORN, Refusal::RegionBound),
        ("jeju", BORN, Refusal::RegionNotInCampaign),
        ("seoul", date(1961, 12, 31), Refusal::NotEligible),
        ("seoul", date(1972, 1, 1), Refusal::NotEligible),
    ] {
        let status = world
            .ask("app-one", region, "ci-0001", born)
            .await
            .expect_err("refused");
        assert_eq!(reason(&status), Some(expected));
        assert_eq!(status.code(), status::code(expected.class()));
    }
    for border in [date(1962, 1, 1), date(1971, 12, 31)] {
        world
            .ask("app-one", "seoul", "ci-0003", border)
            .await
            .expect("the border is inside");
    }

    let good = || world.assertion("ci-0001", BORN);
    let mut unknown = request("app-one", "seoul", good());
    unknown.get_mut().campaign = "kr-2099".to_owned();
    assert_eq!(
        world.refused(unknown).await,
        (Code::NotFound, Some(Refusal::CampaignUnknown))
    );
    let mut flipped = good().into_bytes();
    let last = flipped.len() - 5;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    let flipped = request(
        "app-one",
        "seoul",
        String::from_utf8(flipped).expect("ASCII"),
    );
    assert_eq!(
        world.refused(flipped).await,
        (Code::Unauthenticated, Some(Refusal::AssertionInvalid))
    );
    let old = request("app-one", "seoul", good());
    world.boot.clock.advance(Duration::from_secs(331));
    assert_eq!(
        world.refused(old).await,
        (Code::Unauthenticated, Some(Refusal::AssertionExpired))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_without_the_internal_key() {
    let world = start().await;
    let good = || request("app-one", "seoul", world.assertion("ci-0001", BORN));
    let unknown = (Code::Unauthenticated, Some(Refusal::CallerUnknown));
    let mut without = good();
    without.metadata_mut().remove("x-doseline-internal");
    assert_eq!(world.refused(without).await, unknown);
    let mut wrong = good();
    wrong
        .metadata_mut()
        .insert("x-doseline-internal", "open-sesame".parse().expect("ASCII"));
    assert_eq!(world.refused(wrong).await, unknown);
    let mut nameless = good();
    nameless.metadata_mut().remove("x-doseline-caller");
    assert_eq!(world.refused(nameless).await, unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named() {
    let world = start().await;
    let mut bad = request("app-one", "Seoul!", String::new());
    bad.get_mut().campaign = String::new();
    let status = world
        .identity
        .clone()
        .issue_permit(bad)
        .await
        .expect_err("malformed");
    let refused = status::read(&status).expect("ours");
    let fields: Vec<_> = refused
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    assert_eq!(fields, ["campaign", "region", "assertion"]);
    let long = request("app-one", "seoul", "x".repeat(9_000));
    assert_eq!(
        world.refused(long).await,
        (Code::InvalidArgument, Some(Refusal::Invalid))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_are_renewed_until_the_last_appointment_has_passed() {
    let world = start().await;
    let first = world
        .ask("app-one", "seoul", "ci-0001", BORN)
        .await
        .expect("issued");
    // Ten minutes before midnight in Seoul of the last day.
    let end: jiff::Timestamp = "2022-01-01T00:00:00+09:00".parse().expect("an instant");
    let end = Timestamp::from_micros(end.as_microsecond());
    let until = Timestamp::from_micros(end.as_micros() - 600_000_000);
    world.boot.clock.advance(until.since(NOW));
    let last = world
        .ask("app-one", "seoul", "ci-0001", BORN)
        .await
        .expect("issued");
    let (first, last) = (
        world.read(&first.permit, NOW).expect("good"),
        world.read(&last.permit, until).expect("good"),
    );
    assert_eq!((first.place, first.serial), (last.place, last.serial));
    assert_eq!(last.expires_at, end, "no permit outlives its campaign");
    world.boot.clock.advance(Duration::from_secs(600));
    let status = world
        .ask("app-one", "seoul", "ci-0001", BORN)
        .await
        .expect_err("over");
    assert_eq!(reason(&status), Some(Refusal::CampaignEnded));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_assertion_is_stored() {
    let world = start().await;
    let sub = "CI-canary-9f31c0aa77";
    world
        .ask("app-one", "seoul", sub, BORN)
        .await
        .expect("issued");
    let mut looked_at = 0;
    for entry in std::fs::read_dir(world.folder.path()).expect("readable") {
        let path = entry.expect("readable").path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("people.sqlite"))
        {
            let bytes = std::fs::read(&path).expect("readable");
            looked_at += bytes.len();
            for canary in [sub, "1965-02-28", "19650228"] {
                let found = bytes
                    .windows(canary.len())
                    .any(|window| window == canary.as_bytes());
                assert!(!found, "{canary} is in {}", path.display());
            }
        }
    }
    assert!(looked_at > 4_096, "the store was there");
    let page = world.boot.registry.encode();
    assert!(
        page.contains("doseline_identity_permits_total{outcome=\"ok\"} 1"),
        "{page}"
    );
    assert!(!page.contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_open_and_pause_the_room() {
    let mut world = start().await;
    for n in 0..5 {
        world
            .ask("app-one", "seoul", &format!("ci-{n}"), BORN)
            .await
            .expect("issued");
    }
    let (campaign, cohort) = ("kr-2021".to_owned(), "fifties".to_owned());
    let open = || OpenRoomRequest {
        campaign: campaign.clone(),
        cohort: cohort.clone(),
        people_per_kilosecond: 0,
    };
    let opened = world
        .admin
        .open_room(open())
        .await
        .expect("opened")
        .into_inner();
    assert_eq!(opened.people, 5);
    let pause = |reason: &str| PauseRoomRequest {
        campaign: campaign.clone(),
        cohort: cohort.clone(),
        reason: reason.to_owned(),
    };
    let status = world
        .admin
        .pause_room(pause(" "))
        .await
        .expect_err("no reason");
    assert_eq!(reason(&status), Some(Refusal::Invalid));
    let paused = world
        .admin
        .pause_room(pause("power cut"))
        .await
        .expect("paused")
        .into_inner();
    assert!(paused.version > opened.version);
    let again = world.admin.open_room(open()).await.expect("opened");
    let again = again.into_inner().version;
    assert_eq!(again, paused.version + 1);

    let entry = world
        .keyspace
        .get("/doseline/room/kr-2021/fifties")
        .await
        .expect("read")
        .expect("there");
    let keys = SigningKeys::read(&world.folder.path().join("room")).expect("keys");
    let text = std::str::from_utf8(&entry.value).expect("text");
    let room = Room::verify(&keys.trusted(), text).expect("signed");
    assert!(room.version >= again);
    let permit_keys = SigningKeys::read(&world.folder.path().join("permit")).expect("keys");
    assert!(
        Room::verify(&permit_keys.trusted(), text).is_err(),
        "permits and rooms have keys of their own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_drains_ends_what_it_began() {
    let mut world = start().await;
    let campaign = "kr-2021".to_owned();
    let document = world
        .admin
        .get_campaign(GetCampaignRequest { campaign })
        .await
        .expect("read")
        .into_inner();
    assert!(document.document.contains("\"version\": 1"));
    world.boot.drain.start(Cause::Requested);
    let joined = world.boot.tasks.join(Duration::from_secs(5)).await;
    // The writer of the store lives as long as its handles; everything else has ended.
    assert!(
        joined
            .cut
            .iter()
            .all(|name| ["people_writer", "permit_worker"].contains(name)),
        "{joined:?}"
    );
}
