//! The operators' port: clinics, stock and slots.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{ClinicId, Refusal, RegionId, ShardId, Timestamp, VaccineId};
use proto::admin::clinic_admin_service_server::ClinicAdminService;
use proto::admin::{ApplyClinicsRequest, ApplyClinicsResponse, ClinicSpec, SlotSpec};
use proto::convert::Fields;
use proto::status::{self, Refused};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::ledger::{ApplyFault, Clinic, ClinicSupply, Ledger, NewSlot};

/// Clinics in one call: one transaction of at most a second or so.
const CLINICS_MAX: usize = 200;
/// Slots in one call.
const SLOTS_MAX: usize = 20_000;
/// People one slot can take; above it is a slip of the finger.
const CAPACITY_MAX: u32 = 100_000;

/// The regions a process serves: ledger and number of shards.
pub(crate) type ServedRegions = BTreeMap<RegionId, (Arc<dyn Ledger>, u32)>;

/// `doseline.admin.v1.ClinicAdminService`.
#[derive(Clone)]
pub struct ClinicAdmin {
    /// The regions this process serves.
    pub(crate) regions: Arc<ServedRegions>,
}

#[tonic::async_trait]
impl ClinicAdminService for ClinicAdmin {
    async fn apply_clinics(
        &self,
        request: Request<ApplyClinicsRequest>,
    ) -> Result<Response<ApplyClinicsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let region = fields.parse::<RegionId>("region", &request.region);
        let served = region.as_ref().and_then(|region| self.regions.get(region));
        if region.is_some() && served.is_none() {
            fields.wrong("region", "is not served by this process");
        }
        let shards = served.map_or(1, |(_, shards)| *shards);
        let supply = supply(&mut fields, request.clinics, shards);
        let (ledger, supply) = fields
            .finish(served.map(|(ledger, _)| ledger).zip(supply))
            .map_err(Status::from)?;
        match ledger.apply(&supply, request.validate_only).await {
            Ok(applied) => Ok(Response::new(ApplyClinicsResponse {
                clinics_added: applied.clinics_added,
                slots_added: applied.slots_added,
                slots_changed: applied.slots_changed,
            })),
            Err(ApplyFault::Refused { clinic, refusal }) => {
                let at = supply
                    .iter()
                    .position(|one| one.clinic.clinic == clinic)
                    .unwrap_or(0);
                let mut refused = Refused::from(refusal);
                refused.violations = vec![(format!("clinics[{at}]"), refusal.help().to_owned())];
                Err(refused.into())
            }
            Err(ApplyFault::Fault(error)) => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error), "clinics could not be applied");
                Err(status::refuse(Refusal::Unavailable))
            }
        }
    }
}

fn supply(fields: &mut Fields, clinics: Vec<ClinicSpec>, shards: u32) -> Option<Vec<ClinicSupply>> {
    let slots: usize = clinics.iter().map(|clinic| clinic.slots.len()).sum();
    if clinics.is_empty() || clinics.len() > CLINICS_MAX || slots > SLOTS_MAX {
        fields.wrong(
            "clinics",
            format!("must be 1 to {CLINICS_MAX} with at most {SLOTS_MAX} slots"),
        );
        return None;
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(clinics.len());
    let mut whole = true;
    for (at, clinic) in clinics.into_iter().enumerate() {
        let path = format!("clinics[{at}]");
        if !seen.insert(clinic.clinic.clone()) {
            fields.wrong(format!("{path}.clinic"), "is named twice");
        }
        match one_clinic(fields, &path, clinic, shards) {
            Some(clinic) => out.push(clinic),
            None => whole = false,
        }
    }
    whole.then_some(out)
}

fn one_clinic(
    fields: &mut Fields,
    path: &str,
    spec: ClinicSpec,
    shards: u32,
) -> Option<ClinicSupply> {
    let clinic = fields.parse::<ClinicId>(&format!("{path}.clinic"), &spec.clinic);
    let mut bounded = |field: &str, holds: bool, problem: &str| {
        if !holds {
            fields.wrong(format!("{path}.{field}"), problem);
        }
    };
    bounded(
        "display_name",
        (1..=200).contains(&spec.display_name.len()),
        "must be 1 to 200 bytes",
    );
    bounded(
        "district",
        spec.district.len() <= 100,
        "must be at most 100 bytes",
    );
    bounded(
        "latitude",
        (-90.0..=90.0).contains(&spec.latitude),
        "must be -90 to 90",
    );
    bounded(
        "longitude",
        (-180.0..=180.0).contains(&spec.longitude),
        "must be -180 to 180",
    );
    bounded(
        "shard",
        spec.shard.is_none_or(|shard| shard < shards),
        "must be below the region's number of shards",
    );
    let mut received = BTreeMap::new();
    for (at, stock) in spec.stock.iter().enumerate() {
        let vaccine =
            fields.parse::<VaccineId>(&format!("{path}.stock[{at}].vaccine"), &stock.vaccine);
        if let Some(vaccine) = vaccine
            && received.insert(vaccine, stock.received).is_some()
        {
            fields.wrong(format!("{path}.stock[{at}].vaccine"), "is named twice");
        }
    }
    let total = spec.slots.len();
    let slots: Vec<_> = spec
        .slots
        .into_iter()
        .enumerate()
        .filter_map(|(at, slot)| one_slot(fields, &format!("{path}.slots[{at}]"), &slot))
        .collect();
    let clinic = clinic.filter(|_| slots.len() == total)?;
    let shard = ShardId(spec.shard.unwrap_or_else(|| shard_of(&clinic, shards)));
    let clinic = Clinic {
        clinic,
        shard,
        display_name: spec.display_name,
        district: spec.district,
        latitude: spec.latitude,
        longitude: spec.longitude,
    };
    Some(ClinicSupply {
        clinic,
        received,
        slots,
    })
}

fn one_slot(fields: &mut Fields, path: &str, spec: &SlotSpec) -> Option<NewSlot> {
    let starts_at = fields.parse::<jiff::Timestamp>(&format!("{path}.starts_at"), &spec.starts_at);
    let day = fields.parse::<jiff::civil::Date>(&format!("{path}.day"), &spec.day);
    let vaccine = fields.parse(&format!("{path}.vaccine"), &spec.vaccine);
    let dose = u8::try_from(spec.dose)
        .ok()
        .filter(|dose| (1..=2).contains(dose));
    if dose.is_none() {
        fields.wrong(format!("{path}.dose"), "must be 1 or 2");
    }
    let fits = (1..=CAPACITY_MAX).contains(&spec.capacity);
    if !fits {
        fields.wrong(
            format!("{path}.capacity"),
            format!("must be 1 to {CAPACITY_MAX}"),
        );
    }
    let epoch = jiff::civil::date(1970, 1, 1);
    let day = day
        .and_then(|day| day.since((jiff::Unit::Day, epoch)).ok())
        .map(|span| span.get_days());
    Some(NewSlot {
        starts_at: Timestamp::from_micros(starts_at?.as_microsecond()),
        day: day?,
        vaccine: vaccine?,
        dose: dose?,
        capacity: fits.then_some(spec.capacity)?,
        open: !spec.closed,
    })
}

/// Where a new clinic goes unless the operator says otherwise; stored, so that it can be moved later.
fn shard_of(clinic: &ClinicId, shards: u32) -> u32 {
    let digest = Sha256::digest(clinic.as_str());
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    u32::try_from(u64::from_be_bytes(first) % u64::from(shards.max(1))).unwrap_or(0)
}
