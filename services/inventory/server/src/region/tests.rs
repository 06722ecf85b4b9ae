//! One region's manager over a real ledger and a local key space.

use runtime::keyspace::Keyspace;
use runtime::metrics::Registry;
use runtime::transport::ClientSettings;

use super::*;
use crate::ledger::SeizeRequest;
use crate::ledger::sqlite::SqliteLedger;
use crate::probe::Connector;

const SHARD: ShardId = ShardId(0);
const BOUND: Duration = Duration::from_secs(20);

struct World {
    ledger: Arc<dyn Ledger>,
    keyspace: Keyspace,
    owners: Owners,
    drain: Drain,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

// === impl World ===

impl World {
    /// One process that owns the region's one shard.
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ledger.sqlite");
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(path).expect("opened"));
        ledger.ensure_shards(1).await.expect("a shard");
        let drain = Drain::within(Duration::from_secs(1));
        let world = Self {
            ledger,
            keyspace: Keyspace::local(None).expect("in memory"),
            owners: Owners::default(),
            tasks: Tasks::new(drain.clone()),
            drain,
            _folder: folder,
        };
        let parts = RegionParts {
            region: region(),
            shards: 1,
            ledger: Arc::clone(&world.ledger),
            leases: world.leases("first", "127.0.0.1:1"),
            owners: world.owners.clone(),
            probes: Probes::start(
                &world.tasks,
                &world.drain,
                Connector::new(None, ClientSettings::default()),
            ),
            clock: Clock::system(),
            metrics: Arc::new(Metrics::register(&Registry::default())),
            figures: Figures::new([region()]),
            pace: Pace::default(),
            tasks: world.tasks.clone(),
        };
        let manage = run(parts, world.drain.clone());
        world.tasks.spawn("manage_region", OnExit::Log, manage);
        world
    }

    fn leases(&self, instance: &str, addr: &str) -> Leases {
        Leases::new(
            self.keyspace.clone(),
            self.keyspace.session(Duration::from_secs(5)),
            region(),
            instance.parse().expect("an instance"),
            addr.to_owned(),
            String::new(),
        )
    }

    async fn owned_under(&self, epoch: u64) {
        self.until(|epochs| epochs.contains(&Epoch(epoch))).await;
    }

    async fn until(&self, holds: impl Fn(&[Epoch]) -> bool) {
        let owned = async {
            let mut look = tokio::time::interval(Duration::from_millis(5));
            loop {
                look.tick().await;
                let owner = self.owners.get(&region(), SHARD);
                let epochs: Vec<Epoch> = owner.iter().map(OwnerHandle::epoch).collect();
                if holds(&epochs) {
                    return;
                }
            }
        };
        tokio::time::timeout(BOUND, owned)
            .await
            .expect("the shard is owned under the epoch awaited");
    }
}

fn region() -> RegionId {
    "seoul".parse().expect("slug")
}

/// Somebody took the shard while this process was frozen, sold from it, and gave it away again. Gateways know the later
/// epoch and ask nobody of the earlier one, so no statement would ever tell the owner here that it was superseded.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_owner_that_was_superseded_learns_it_and_takes_the_shard_again() {
    let world = World::start().await;
    world.owned_under(1).await;
    let other = world.leases("second", "127.0.0.1:2");
    let request = SeizeRequest {
        shard: SHARD,
        expect: Epoch(1),
        floor: Epoch(1),
        nonce: [7; 16],
        owner: other.instance().clone(),
        addr: other.addr().to_owned(),
    };
    let seized = world.ledger.seize(request).await.expect("seized");
    assert_eq!(seized.epoch, Epoch(2));
    published(&other, Epoch(2)).await;
    other.hand_over(SHARD, Epoch(2), None).await.expect("given");

    world.owned_under(3).await;
    let view = world.leases("third", "127.0.0.1:3");
    assert!(
        !view.publish(SHARD, Epoch(2)).await.expect("answered"),
        "an epoch below the highest published is never published again"
    );
    world.drain.start(runtime::drain::Cause::Requested);
    world.until(<[Epoch]>::is_empty).await;
}

/// The session may not have its lease yet.
async fn published(leases: &Leases, epoch: Epoch) {
    let publish = async {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        loop {
            again.tick().await;
            if leases.publish(SHARD, epoch).await.is_ok_and(|done| done) {
                return;
            }
        }
    };
    tokio::time::timeout(BOUND, publish)
        .await
        .expect("the epoch is published");
}
