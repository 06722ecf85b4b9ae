//! The gRPC side: streams of commands from gateways, streams of availability to them, and the operators' port.

mod answer;
mod clinic_admin;
mod command;
mod departure;
mod execute;
mod leftovers;
mod side;
mod terminal;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use domain::{Refusal, RegionId};
use futures::Stream;
use proto::inventory::inventory_service_server::InventoryService;
use proto::inventory::{
    ExecuteRequest, ExecuteResponse, GetFiguresRequest, GetFiguresResponse, WatchShardsRequest,
    WatchShardsResponse,
};
use proto::status;
use runtime::reload::Reloading;
use runtime::signing_keys::SigningKeys;
use runtime::trusted_keys::TrustedKeysFile;
use runtime::{Clock, Tasks};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub use clinic_admin::ClinicAdmin;
pub use side::SideWork;
pub(crate) use side::move_fits;
pub use terminal::SupplyKept;

use crate::admission::Admission;
use crate::figures::Figures;
use crate::internal::InternalKey;
use crate::lease::Leases;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::owner::Owners;
use crate::permits::Verifier;

/// A region as the RPCs see it.
#[derive(Clone)]
pub struct RegionAccess {
    /// Its ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Its capacity leases, for hints.
    pub leases: Leases,
    /// What it does beside its owners.
    pub side: SideWork,
    /// The supply figures read last.
    pub supply: SupplyKept,
    /// The keys that sign its receipts; `None` = nobody leaves it for another region.
    pub receipt_keys: Option<Reloading<SigningKeys>>,
}

/// What every stream shares.
pub struct Shared {
    /// The regions this process serves.
    pub regions: std::collections::BTreeMap<RegionId, RegionAccess>,
    /// The owners of this process.
    pub owners: Owners,
    /// Whose turn it is.
    pub admission: Admission,
    /// What the doorkeeper hears.
    pub figures: Figures,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who a permit speaks of.
    pub verifier: Verifier,
    /// Public keys that identity's other words are believed by.
    pub permit_keys: TrustedKeysFile,
    /// Proof that a gateway asks.
    pub internal: InternalKey,
    /// The clocks.
    pub clock: Clock,
    /// Where streams' tasks belong.
    pub tasks: Tasks,
    /// Cancelled when every shard was given away: streams end then, not at the drain's deadline.
    pub over: CancellationToken,
}

/// `doseline.inventory.v1.InventoryService`.
#[derive(Clone)]
pub struct InventoryRpc(pub Arc<Shared>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl Shared ===

impl Shared {
    /// Counts a refusal before an owner saw what was asked. What a caller says of a region is not believed.
    fn turned_away(&self, region: Option<&RegionId>, why: Refusal) {
        let served = region.filter(|region| self.regions.contains_key(*region));
        self.metrics.turned_away(served, why);
    }

    /// Lets a call in whose caller is the part of Doseline that it must be.
    fn let_in(&self, proof: Result<(), Refusal>) -> Result<(), Status> {
        proof.map_err(|why| {
            self.turned_away(None, why);
            status::refuse(why)
        })
    }
}

#[tonic::async_trait]
impl InventoryService for InventoryRpc {
    type ExecuteStream = Answers<ExecuteResponse>;
    type WatchShardsStream = Answers<WatchShardsResponse>;

    async fn execute(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        self.0.let_in(self.0.internal.check(&request))?;
        Ok(Response::new(execute::serve(
            Arc::clone(&self.0),
            request.into_inner(),
        )))
    }

    async fn watch_shards(
        &self,
        request: Request<WatchShardsRequest>,
    ) -> Result<Response<Self::WatchShardsStream>, Status> {
        self.0.let_in(self.0.internal.check(&request))?;
        let mut fields = proto::convert::Fields::default();
        let region = fields.parse::<RegionId>("region", &request.get_ref().region);
        let region = fields.finish(region)?;
        if !self.0.regions.contains_key(&region) {
            return Err(status::refuse(Refusal::RegionNotInCampaign));
        }
        Ok(Response::new(watch::serve(Arc::clone(&self.0), region)))
    }

    async fn get_figures(
        &self,
        request: Request<GetFiguresRequest>,
    ) -> Result<Response<GetFiguresResponse>, Status> {
        self.0.let_in(self.0.internal.check_doorkeeper(&request))?;
        Ok(Response::new(self.0.figures.now()))
    }
}
