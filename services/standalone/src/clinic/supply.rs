//! What there is to give, for everybody.

use clap::ValueEnum;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::availability::{GetSupplyRequest, Supply as PbSupply, SupplyLevel};
use serde_json::{Value, json};

use super::show::{self, instant, table};
use crate::client::{Target, print};

const PAGE_SIZE: i32 = 1_000;
/// Figures live for a second, and a page takes milliseconds.
const STARTS_MAX: u32 = 10;
const COLUMNS: [&str; 11] = [
    "district", "clinic", "vaccine", "received", "wasted", "walk_in", "opened", "held", "booked",
    "given", "left",
];

/// `doseline clinic supply`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Supply {
    #[command(flatten)]
    target: Target,
    /// The region.
    region: String,
    /// By what the figures are added up.
    #[arg(long, value_enum, default_value_t = Level::Region)]
    level: Level,
    /// Only this district.
    #[arg(long, default_value = "")]
    district: String,
    /// Only this vaccine.
    #[arg(long, default_value = "")]
    vaccine: String,
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Region,
    District,
    Clinic,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// Reads all pages. A page of later figures than the first would not fit: then it starts again.
pub(super) async fn run(args: Supply) -> anyhow::Result<()> {
    let mut client = AvailabilityServiceClient::new(args.target.connect()?);
    let (mut rows, mut page_token, mut as_of) = (Vec::new(), String::new(), None);
    let mut starts = 0;
    loop {
        let request = GetSupplyRequest {
            region: args.region.clone(),
            level: match args.level {
                Level::Region => SupplyLevel::Region,
                Level::District => SupplyLevel::District,
                Level::Clinic => SupplyLevel::Clinic,
            }
            .into(),
            district: args.district.clone(),
            clinic: String::new(),
            vaccine: args.vaccine.clone(),
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = client.get_supply(request).await?.into_inner();
        if !rows.is_empty() && as_of != page.as_of {
            starts += 1;
            anyhow::ensure!(
                starts < STARTS_MAX,
                "the figures change faster than their pages are read; ask for one district"
            );
            rows.clear();
            (page_token, as_of) = (String::new(), None);
            continue;
        }
        as_of = page.as_of;
        rows.extend(page.supply);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let as_of = instant(as_of.as_ref());
    match args.output {
        Format::Table => {
            let cells: Vec<_> = rows.iter().map(|row| cells(row).to_vec()).collect();
            let heads: Vec<_> = COLUMNS.iter().map(|name| name.to_uppercase()).collect();
            let heads: Vec<_> = heads.iter().map(String::as_str).collect();
            let table = table(&heads, &cells);
            show::write(&format!("{table}as of {}\n", as_of.unwrap_or_default()))
        }
        Format::Json => {
            let rows: Vec<_> = rows.iter().map(value).collect();
            print(&json!({ "supply": rows, "as_of": as_of }))
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(std::io::stdout().lock());
            out.write_record(COLUMNS.iter().copied().chain(["as_of"]))?;
            let as_of = as_of.unwrap_or_default();
            for row in &rows {
                out.write_record(cells(row).iter().chain([&as_of]))?;
            }
            Ok(out.flush()?)
        }
    }
}

fn cells(row: &PbSupply) -> [String; 11] {
    [
        row.district.clone(),
        row.clinic.clone(),
        row.vaccine.clone(),
        row.received.to_string(),
        row.wasted.to_string(),
        row.walk_in.to_string(),
        row.opened.to_string(),
        row.held.to_string(),
        row.booked.to_string(),
        row.given.to_string(),
        row.left.to_string(),
    ]
}

fn value(row: &PbSupply) -> Value {
    json!({
        "district": row.district, "clinic": row.clinic, "vaccine": row.vaccine,
        "received": row.received, "wasted": row.wasted, "walk_in": row.walk_in, "opened": row.opened,
        "held": row.held, "booked": row.booked, "given": row.given, "left": row.left,
    })
}
