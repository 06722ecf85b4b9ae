//! The operator's commands, over the admin ports of identity and inventory.

use std::path::PathBuf;

use anyhow::Context as _;
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::clinic_admin_service_client::ClinicAdminServiceClient;
use proto::admin::{
    ApplyCampaignRequest, ApplyClinicsRequest, ClinicSpec, GetCampaignRequest, OpenRoomRequest,
    PauseRoomRequest, SlotSpec, StockSpec,
};
use runtime::Clock;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Tls, print};

/// Clinics in one call; the server takes 200.
const CLINICS_A_CALL: usize = 100;

/// Where the admin port is.
#[derive(Debug, clap::Args)]
pub(crate) struct Admin {
    /// The admin port, HOST:PORT (identity's for campaigns and rooms, inventory's for clinics).
    #[arg(long, env = "DOSELINE_ADMIN", default_value = "127.0.0.1:7701")]
    pub(crate) admin: String,
    #[command(flatten)]
    pub(crate) tls: Tls,
}

/// `doseline campaign`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CampaignCommand {
    /// Create or change a campaign from a JSON document.
    Apply {
        #[command(flatten)]
        admin: Admin,
        /// The document.
        file: PathBuf,
        /// Check only.
        #[arg(long)]
        validate_only: bool,
    },
    /// Print a campaign.
    Show {
        #[command(flatten)]
        admin: Admin,
        /// Its id.
        campaign: String,
    },
}

/// Runs `doseline campaign`.
pub(crate) async fn campaign(command: CampaignCommand) -> anyhow::Result<()> {
    match command {
        CampaignCommand::Apply {
            admin,
            file,
            validate_only,
        } => {
            let document = read(&file)?;
            let mut client = CampaignAdminServiceClient::new(admin.tls.channel(&admin.admin)?);
            let request = ApplyCampaignRequest {
                document,
                validate_only,
            };
            let applied = client.apply_campaign(request).await?.into_inner();
            print(&json!({ "version": applied.version }))
        }
        CampaignCommand::Show { admin, campaign } => {
            let mut client = CampaignAdminServiceClient::new(admin.tls.channel(&admin.admin)?);
            let found = client
                .get_campaign(GetCampaignRequest { campaign })
                .await?
                .into_inner();
            print(&serde_json::from_str::<serde_json::Value>(&found.document)?)
        }
    }
}

/// `doseline clinic apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    admin: Admin,
    /// The document: `{"region": …, "clinics": […]}`.
    file: PathBuf,
    /// Check only.
    #[arg(long)]
    validate_only: bool,
}

/// A region's clinics as a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClinicsDocument {
    region: String,
    clinics: Vec<ClinicDocument>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClinicDocument {
    clinic: String,
    display_name: String,
    #[serde(default)]
    district: String,
    latitude: f64,
    longitude: f64,
    shard: Option<u32>,
    stock: std::collections::BTreeMap<String, u32>,
    slots: Vec<SlotDocument>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotDocument {
    starts_at: String,
    day: String,
    vaccine: String,
    #[serde(default = "first_dose")]
    dose: u32,
    capacity: u32,
    #[serde(default)]
    closed: bool,
}

fn first_dose() -> u32 {
    1
}

/// Runs `doseline clinic apply`.
pub(crate) async fn apply_clinics(args: ApplyArgs) -> anyhow::Result<()> {
    let ApplyArgs {
        admin,
        file,
        validate_only,
    } = args;
    let document: ClinicsDocument =
        serde_json::from_str(&read(&file)?).with_context(|| format!("{}", file.display()))?;
    let mut client = ClinicAdminServiceClient::new(admin.tls.channel(&admin.admin)?);
    let clinics: Vec<ClinicSpec> = document.clinics.into_iter().map(spec).collect();
    let (mut added, mut slots, mut changed) = (0, 0, 0);
    for part in clinics.chunks(CLINICS_A_CALL) {
        let region = document.region.clone();
        let request = ApplyClinicsRequest {
            region,
            clinics: part.to_vec(),
            validate_only,
        };
        let applied = client.apply_clinics(request).await?.into_inner();
        added += applied.clinics_added;
        slots += applied.slots_added;
        changed += applied.slots_changed;
    }
    print(&json!({ "clinics_added": added, "slots_added": slots, "slots_changed": changed }))
}

fn spec(clinic: ClinicDocument) -> ClinicSpec {
    let stock = clinic
        .stock
        .into_iter()
        .map(|(vaccine, received)| StockSpec { vaccine, received });
    let slots = clinic.slots.into_iter().map(|slot| SlotSpec {
        starts_at: slot.starts_at,
        day: slot.day,
        vaccine: slot.vaccine,
        dose: slot.dose,
        capacity: slot.capacity,
        closed: slot.closed,
    });
    ClinicSpec {
        clinic: clinic.clinic,
        display_name: clinic.display_name,
        district: clinic.district,
        latitude: clinic.latitude,
        longitude: clinic.longitude,
        shard: clinic.shard,
        stock: stock.collect(),
        slots: slots.collect(),
    }
}

/// `doseline room`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RoomCommand {
    /// Take all steps of the draw that are missing, with a public value of our own, and open the doors: for development
    /// and small places. Open doors only get another rate.
    Open {
        #[command(flatten)]
        admin: Admin,
        /// The campaign.
        campaign: String,
        /// The cohort.
        cohort: String,
        /// How many people come per second, in all regions together; 0 = everybody at once.
        #[arg(long, default_value_t = 0.0)]
        people_per_second: f64,
    },
    /// Stop new holds and bookings.
    Pause {
        #[command(flatten)]
        admin: Admin,
        /// The campaign.
        campaign: String,
        /// The cohort.
        cohort: String,
        /// Why, for people.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Check a draw from its published documents alone, and tell a ticket's place.
    Audit(crate::room::audit::Args),
    /// Write what a draw can be audited by into a folder, from what a gateway tells everybody.
    Export(crate::room::export::Args),
    #[command(flatten)]
    Operate(crate::room::operate::Command),
    /// Simulate an opening of millions in virtual time, and report what was claimed against what came out.
    Simulate(Box<crate::room::simulate::Args>),
}

/// Runs `doseline room`.
pub(crate) async fn room(command: RoomCommand) -> anyhow::Result<()> {
    match command {
        RoomCommand::Open {
            admin,
            campaign,
            cohort,
            people_per_second,
        } => {
            let people_per_kilosecond = crate::room::operate::per_kilosecond(people_per_second)?;
            let mut client = CampaignAdminServiceClient::new(admin.tls.channel(&admin.admin)?);
            let request = OpenRoomRequest {
                campaign,
                cohort,
                people_per_kilosecond,
            };
            let open = client.open_room(request).await?.into_inner();
            print(&json!({ "version": open.version, "people": open.people }))
        }
        RoomCommand::Pause {
            admin,
            campaign,
            cohort,
            reason,
        } => {
            let mut client = CampaignAdminServiceClient::new(admin.tls.channel(&admin.admin)?);
            let request = PauseRoomRequest {
                campaign,
                cohort,
                reason,
            };
            let paused = client.pause_room(request).await?.into_inner();
            print(&json!({ "version": paused.version }))
        }
        RoomCommand::Audit(args) => crate::room::audit::run(&args),
        RoomCommand::Export(args) => crate::room::export::run(args).await,
        RoomCommand::Operate(command) => crate::room::operate::run(command).await,
        RoomCommand::Simulate(args) => crate::room::simulate::run(&args),
    }
}

/// `doseline keys`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeysArgs {
    /// Folder for signing keys; a new key is added beside those that are there.
    #[arg(long)]
    signing: PathBuf,
    /// File for the public keys, to be given to gateways and inventories.
    #[arg(long)]
    public: PathBuf,
    /// Seconds from now on which the new key signs; until then verifiers can learn it.
    #[arg(long, default_value_t = 0)]
    after_secs: i64,
}

/// Adds a signing key and writes the public set.
pub(crate) fn keys(args: &KeysArgs) -> anyhow::Result<()> {
    let after = std::time::Duration::from_secs(u64::try_from(args.after_secs).unwrap_or(0));
    let kid = identity::keys::generate(&args.signing, Clock::system().wall().plus(after))?;
    identity::keys::publish(&args.signing, &args.public)?;
    print(&json!({ "kid": kid }))
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}
