//! Follows what one inventory says of a region's shards, and starts again whenever that breaks off.
//!
//! Invariant: a lost feed takes nothing away: what was heard stays, and its age tells.

use std::sync::Arc;
use std::time::Duration;

use domain::{Epoch, ShardId};
use proto::inventory::inventory_service_client::InventoryServiceClient;
use proto::inventory::watch_shards_response::Update;
use proto::inventory::{WatchShardsRequest, WatchShardsResponse};
use runtime::telemetry::LogLimit;
use runtime::{OnExit, Tasks};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::region::Region;
use crate::routing::{ANSWER_BYTES_MAX, Addr, Backoff, Connector, RegionRoutes};

const OPEN_WITHIN: Duration = Duration::from_secs(3);
const REOPEN_FIRST: Duration = Duration::from_millis(50);
const REOPEN_LONGEST: Duration = Duration::from_secs(1);

static LOST: LogLimit = LogLimit::every(Duration::from_secs(10));

/// Follows members of one region. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Follow {
    region: Arc<Region>,
    routes: Arc<RegionRoutes>,
    connector: Connector,
}

impl Follow {
    pub(crate) fn new(
        region: Arc<Region>,
        routes: Arc<RegionRoutes>,
        connector: Connector,
    ) -> Self {
        Self {
            region,
            routes,
            connector,
        }
    }

    /// Follows the inventory at `addr` until `stop`.
    pub(crate) fn start(&self, addr: Addr, stop: CancellationToken, tasks: &Tasks) {
        let this = self.clone();
        tasks.spawn("follow_shards", OnExit::Log, async move {
            stop.run_until_cancelled(this.follow(addr)).await;
        });
    }

    async fn follow(self, addr: Addr) {
        let channel = match self.connector.channel(&addr) {
            Ok(channel) => channel,
            Err(error) => {
                let error = runtime::fields::chain(&error);
                tracing::error!(error, "an inventory announced an address that is none");
                return;
            }
        };
        let mut backoff = Backoff::new(REOPEN_FIRST, REOPEN_LONGEST);
        loop {
            if let Some(feed) = self.open(channel.clone()).await
                && self.listen(feed, &addr).await
            {
                backoff = Backoff::new(REOPEN_FIRST, REOPEN_LONGEST);
            }
            if let Some(suppressed) = LOST.pass() {
                tracing::info!(region = %self.region.id, suppressed, "a feed of shards is not up");
            }
            tokio::time::sleep(backoff.step()).await;
        }
    }

    async fn open(&self, channel: Channel) -> Option<Streaming<WatchShardsResponse>> {
        let mut request = Request::new(WatchShardsRequest {
            region: self.region.id.to_string(),
        });
        self.connector.internal().sign(request.metadata_mut());
        let mut client =
            InventoryServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let opened = tokio::time::timeout(OPEN_WITHIN, client.watch_shards(request)).await;
        opened.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Hears a feed to its end; says whether it was worth having.
    async fn listen(&self, mut feed: Streaming<WatchShardsResponse>, addr: &Addr) -> bool {
        let mut heard = false;
        while let Ok(Some(message)) = feed.message().await {
            let decides = !matches!(message.update, None | Some(Update::Released(_)));
            let (shard, epoch) = (ShardId(message.shard), Epoch(message.epoch));
            let applied = self.region.apply(message);
            if decides {
                self.routes.learn(shard, epoch, addr);
            }
            if applied.routes {
                self.routes.nudge();
            }
            if applied.gap {
                tracing::debug!(region = %self.region.id, "a message of a shard was lost");
                return heard;
            }
            heard = true;
        }
        heard
    }
}
