//! `doseline clinic incident`: close, look at a plan, apply it, see how far it is.

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use domain::name::{ClinicName, IncidentName};
use jiff::civil::Date;
use proto::clinic as pb;
use proto::clinic::incident_service_client::IncidentServiceClient;
use serde_json::{Value, json};
use uuid::Uuid;

use super::show::{self, Shown};
use super::{Output, ask};
use crate::client::{Called, Target, print};

/// Lines asked for at once.
const PAGE_SIZE: i32 = 500;

/// `doseline clinic incident`.
#[derive(Debug, Subcommand)]
pub(crate) enum Incident {
    /// Close the clinic's slots at once and list who is booked there.
    Open(Box<Open>),
    /// Plan anew where those who are still booked there go; moves nobody.
    Preview(Named),
    /// Begin to move people as a plan says; it goes on by itself.
    Apply {
        #[command(flatten)]
        named: Named,
        /// The plan that was looked at.
        plan: u32,
    },
    /// How far it is, and where each booking goes.
    Show {
        #[command(flatten)]
        named: Named,
        /// Which plan; the last one when not given, 0 = who was booked when it was opened.
        #[arg(long)]
        plan: Option<u32>,
    },
}

/// `doseline clinic incident open`.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Open {
    #[command(flatten)]
    by: By,
    /// The clinic, such as regions/seoul/clinics/1168-0042.
    #[arg(long, env = "DOSELINE_CLINIC")]
    clinic: ClinicName,
    /// What happened.
    #[arg(value_enum)]
    kind: Kind,
    /// The vaccine concerned; all when not given.
    #[arg(long)]
    vaccine: Option<String>,
    /// The first day concerned; from now on when not given.
    #[arg(long)]
    from: Option<Date>,
    /// The last day concerned; to the end when not given.
    #[arg(long)]
    to: Option<Date>,
}

/// An incident, and who asks about it.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Named {
    #[command(flatten)]
    by: By,
    /// The incident, as `open` named it.
    incident: IncidentName,
}

/// Who asks, and how it is answered.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct By {
    #[command(flatten)]
    target: Target,
    /// In development mode: be an operator, not the clinic.
    #[arg(long)]
    operator: bool,
    /// The same for every retry of one intent; made here when not given.
    #[arg(long)]
    request_id: Option<Uuid>,
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What happened.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Doses spoiled: people go to other clinics.
    FridgeFailure,
    /// The clinic is closed: people go to other clinics.
    Closure,
    /// Doses do not come: people get later days, at the same clinic first.
    SupplyCut,
}

impl By {
    fn connect(&self, clinic: &ClinicName) -> anyhow::Result<IncidentServiceClient<Called>> {
        let channel = if self.operator {
            self.target.connect_as_operator()?
        } else {
            self.target.connect_as_clinic(clinic)?
        };
        Ok(IncidentServiceClient::new(channel))
    }

    fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }
}

pub(super) async fn run(incident: Incident) -> anyhow::Result<()> {
    match incident {
        Incident::Open(open) => self::open(*open).await,
        Incident::Preview(named) => preview(named).await,
        Incident::Apply { named, plan } => apply(named, plan).await,
        Incident::Show { named, plan } => show_lines(named, plan).await,
    }
}

async fn open(open: Open) -> anyhow::Result<()> {
    let request_id = open.by.request_id();
    let kind = match open.kind {
        Kind::FridgeFailure => pb::incident::Kind::FridgeFailure,
        Kind::Closure => pb::incident::Kind::Closure,
        Kind::SupplyCut => pb::incident::Kind::SupplyCut,
    };
    let request = pb::OpenIncidentRequest {
        clinic: open.clinic.to_string(),
        request_id: request_id.clone(),
        kind: kind.into(),
        vaccine: open.vaccine.unwrap_or_default(),
        from_day: open.from.map(ask::pb_date),
        to_day: open.to.map(ask::pb_date),
    };
    let mut client = open.by.connect(&open.clinic)?;
    let answer = client.open_incident(request).await?.into_inner();
    let incident = answer.incident.context("an incident without one")?;
    let lines = lines(&mut client, &incident.name, Some(0)).await?;
    changed(request_id, answer.repeated_answer, &incident)
        .with_table("lines", lines_json(&lines), &lines_table(&lines))
        .print(open.by.output)
}

async fn preview(named: Named) -> anyhow::Result<()> {
    let request_id = named.by.request_id();
    let request = pb::PreviewPlanRequest {
        incident: named.incident.to_string(),
        request_id: request_id.clone(),
    };
    let mut client = named.by.connect(&named.incident.clinic)?;
    let answer = client.preview_plan(request).await?.into_inner();
    let incident = answer.incident.context("an incident without one")?;
    let lines = lines(&mut client, &incident.name, Some(incident.plan)).await?;
    changed(request_id, answer.repeated_answer, &incident)
        .with_table("lines", lines_json(&lines), &lines_table(&lines))
        .print(named.by.output)
}

async fn apply(named: Named, plan: u32) -> anyhow::Result<()> {
    let request_id = named.by.request_id();
    let request = pb::ApplyPlanRequest {
        incident: named.incident.to_string(),
        request_id: request_id.clone(),
        plan,
    };
    let mut client = named.by.connect(&named.incident.clinic)?;
    let answer = client.apply_plan(request).await?.into_inner();
    let incident = answer.incident.context("an incident without one")?;
    changed(request_id, answer.repeated_answer, &incident).print(named.by.output)
}

async fn show_lines(named: Named, plan: Option<u32>) -> anyhow::Result<()> {
    let mut client = named.by.connect(&named.incident.clinic)?;
    let name = named.incident.to_string();
    let request = pb::GetIncidentRequest {
        incident: name.clone(),
    };
    let incident = client.get_incident(request).await?.into_inner().incident;
    let incident = incident.context("an incident without one")?;
    let lines = lines(&mut client, &name, plan.or(Some(incident.plan))).await?;
    match named.by.output {
        Output::Json => print(&json!({
            "incident": incident_json(&incident), "lines": lines_json(&lines),
        })),
        Output::Table => show::write(&format!(
            "{}{}",
            incident_table(&incident),
            lines_table(&lines)
        )),
    }
}

async fn lines(
    client: &mut IncidentServiceClient<Called>,
    incident: &str,
    plan: Option<u32>,
) -> anyhow::Result<Vec<pb::IncidentLine>> {
    let (mut lines, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListIncidentLinesRequest {
            incident: incident.to_owned(),
            plan,
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = client.list_incident_lines(request).await?.into_inner();
        lines.extend(page.lines);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(lines);
        }
    }
}

fn changed(request_id: String, repeated_answer: bool, incident: &pb::Incident) -> Shown {
    let shown = Shown::of(request_id, repeated_answer);
    shown.with_table(
        "incident",
        incident_json(incident),
        &incident_table(incident),
    )
}

fn incident_table(incident: &pb::Incident) -> String {
    let counts = [
        incident.plan,
        incident.affected,
        incident.planned,
        incident.moved,
        incident.failed,
        incident.unmovable,
        incident.held,
    ];
    let mut row = vec![short(incident.state().as_str_name())];
    row.extend(counts.map(|count| count.to_string()));
    let heads = [
        "STATE",
        "PLAN",
        "AFFECTED",
        "PLANNED",
        "MOVED",
        "FAILED",
        "UNMOVABLE",
        "HELD",
    ];
    format!("{}\n{}", incident.name, show::table(&heads, &[row]))
}

fn incident_json(incident: &pb::Incident) -> Value {
    let day = |day: &Option<proto::common::Date>| {
        day.as_ref()
            .and_then(proto::convert::civil_date)
            .map(|day| day.to_string())
    };
    json!({
        "name": incident.name, "kind": incident.kind().as_str_name(), "vaccine": incident.vaccine,
        "from_day": day(&incident.from_day), "to_day": day(&incident.to_day),
        "state": incident.state().as_str_name(), "plan": incident.plan,
        "open_time": show::instant(incident.open_time.as_ref()), "affected": incident.affected,
        "planned": incident.planned, "moved": incident.moved, "failed": incident.failed,
        "unmovable": incident.unmovable, "held": incident.held,
    })
}

fn lines_table(lines: &[pb::IncidentLine]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let rows = lines.iter().map(|line| {
        vec![
            line.code.clone(),
            line.dose.to_string(),
            show::at(line.start_time.as_ref()),
            short(line.state().as_str_name()),
            show::at(line.to_start_time.as_ref()),
            line.to_slot.clone(),
            line.reason.clone(),
        ]
    });
    let heads = [
        "CODE",
        "DOSE",
        "START",
        "STATE",
        "NEW START",
        "NEW SLOT",
        "REASON",
    ];
    show::table(&heads, &rows.collect::<Vec<_>>())
}

fn lines_json(lines: &[pb::IncidentLine]) -> Value {
    let line = |line: &pb::IncidentLine| {
        json!({
            "code": line.code, "dose": line.dose, "vaccine": line.vaccine,
            "start_time": show::instant(line.start_time.as_ref()), "to_slot": line.to_slot,
            "to_start_time": show::instant(line.to_start_time.as_ref()),
            "state": line.state().as_str_name(), "reason": line.reason, "wave": line.wave,
        })
    };
    lines.iter().map(line).collect()
}

/// `STATE_APPLYING` as a person reads it.
fn short(state: &str) -> String {
    state.trim_start_matches("STATE_").to_lowercase()
}
