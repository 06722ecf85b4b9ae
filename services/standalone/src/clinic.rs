//! A clinic's terminal in the terminal: stock, slots, day sheet, check-in, doses, supply.
//!
//! Invariant: what a person reads in a table, a script reads in `-o json`.

mod ask;
mod incident;
mod leftovers;
mod show;
mod supply;
mod watch;

use clap::{Args, Subcommand, ValueEnum};
use domain::name::ClinicName;
use jiff::civil::{Date, Time};
use uuid::Uuid;

use crate::admin;
use crate::client::Target;

/// `doseline clinic`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add clinics with stock and slots, or add to them, from a JSON document. Repeating changes nothing.
    Apply(admin::ApplyArgs),
    /// Doses of a vaccine: deliver, waste, set aside for walk-ins.
    #[command(subcommand)]
    Stock(Stock),
    /// Record a dose given to somebody without a booking, out of those set aside.
    WalkIn {
        #[command(flatten)]
        terminal: Terminal,
        /// The vaccine.
        vaccine: String,
        /// What is printed on the vial.
        lot: String,
    },
    /// Open slots by a template, all of them or none.
    Open(Box<Open>),
    /// Let a slot take so many people.
    Resize {
        #[command(flatten)]
        terminal: Terminal,
        /// The slot: its number at this clinic or its full name.
        slot: String,
        /// People.
        capacity: u32,
    },
    /// Take nobody new at some slots; who is booked stays booked.
    Close {
        #[command(flatten)]
        terminal: Terminal,
        /// The slots: their numbers at this clinic or their full names.
        #[arg(required = true)]
        slots: Vec<String>,
    },
    /// The day's appointments.
    Sheet {
        #[command(flatten)]
        terminal: Terminal,
        /// The day, such as 2031-03-10; today on this machine when not given.
        day: Option<Date>,
    },
    /// Note that the person of a booking has come.
    CheckIn {
        #[command(flatten)]
        terminal: Terminal,
        /// The booking's code as it was read out.
        code: String,
    },
    /// Record that the dose was given.
    Given {
        #[command(flatten)]
        terminal: Terminal,
        /// The booking's code.
        code: String,
        /// The vaccine that was given.
        vaccine: String,
        /// What is printed on the vial.
        lot: String,
        /// Which dose of the series.
        #[arg(long, default_value_t = 1)]
        dose: u32,
    },
    /// Record that the person did not come.
    NoShow {
        #[command(flatten)]
        terminal: Terminal,
        /// The booking's code.
        code: String,
    },
    /// All slots of the clinic as they are now.
    Inventory {
        #[command(flatten)]
        terminal: Terminal,
    },
    /// The slots, then every change, until it is interrupted. With `-o json` one line for each message.
    Watch {
        #[command(flatten)]
        terminal: Terminal,
    },
    /// A fridge fails, the clinic closes, doses do not come: close slots and move the people, by a plan.
    #[command(subcommand)]
    Incident(incident::Incident),
    /// Doses left at the end of a day: offer them, end a round, list, export, audit.
    #[command(subcommand)]
    Leftovers(leftovers::Leftovers),
    /// What there is to give, by region, district or clinic; everybody may ask.
    Supply(supply::Supply),
}

/// `doseline clinic stock`.
#[derive(Debug, Subcommand)]
pub(crate) enum Stock {
    /// Add doses that came.
    Deliver(Doses),
    /// Take away doses that spoiled. What is then short closes places that nobody has.
    Waste(Doses),
    /// Set doses aside for people without a booking: so many in all.
    WalkIns(Doses),
}

/// A vaccine and a number of doses.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Doses {
    #[command(flatten)]
    terminal: Terminal,
    /// The vaccine.
    vaccine: String,
    /// Doses.
    doses: u32,
}

/// `doseline clinic open`.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Open {
    #[command(flatten)]
    terminal: Terminal,
    /// The campaign that the slots are for: its clock tells the hours.
    #[arg(long)]
    campaign: String,
    /// The vaccine.
    #[arg(long)]
    vaccine: String,
    /// Which dose of the series.
    #[arg(long, default_value_t = 1)]
    dose: u32,
    /// Days and ranges of days, such as 2031-03-10..2031-03-14,2031-03-17.
    #[arg(long, required = true, value_delimiter = ',')]
    days: Vec<Days>,
    /// When the first slot of a day starts.
    #[arg(long)]
    from: Time,
    /// Every slot starts before this; 24:00 is written 23:59.
    #[arg(long)]
    to: Time,
    /// Minutes from one slot to the next.
    #[arg(long, default_value_t = 30)]
    step: u32,
    /// People that each slot takes.
    #[arg(long)]
    capacity: u32,
    /// Say what would come of it and change nothing.
    #[arg(long)]
    preview: bool,
}

/// One day, or all from one to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Days(Date, Date);

impl std::str::FromStr for Days {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        Ok(Self(from.parse()?, to.parse()?))
    }
}

/// Whose terminal this is, and how it answers.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Terminal {
    #[command(flatten)]
    target: Target,
    /// The clinic, such as regions/seoul/clinics/1168-0042.
    #[arg(long, env = "DOSELINE_CLINIC")]
    clinic: ClinicName,
    /// The same for every retry of one intent; made here when not given.
    #[arg(long)]
    request_id: Option<Uuid>,
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns.
    Table,
    /// JSON.
    Json,
}

impl Terminal {
    fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }

    /// A slot by its number at this clinic or by its full name.
    fn slot(&self, slot: &str) -> String {
        if slot.contains('/') {
            slot.to_owned()
        } else {
            format!("{}/slots/{slot}", self.clinic)
        }
    }
}

/// Runs `doseline clinic`.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Apply(args) => admin::apply_clinics(args).await,
        Command::Stock(stock) => ask::stock(stock).await,
        Command::WalkIn {
            terminal,
            vaccine,
            lot,
        } => ask::walk_in(terminal, vaccine, lot).await,
        Command::Open(open) => ask::open(*open).await,
        Command::Resize {
            terminal,
            slot,
            capacity,
        } => ask::resize(terminal, &slot, capacity).await,
        Command::Close { terminal, slots } => ask::close(terminal, &slots).await,
        Command::Sheet { terminal, day } => ask::sheet(terminal, day).await,
        Command::CheckIn { terminal, code } => ask::check_in(terminal, code).await,
        Command::Given {
            terminal,
            code,
            vaccine,
            lot,
            dose,
        } => ask::given(terminal, code, vaccine, lot, dose).await,
        Command::NoShow { terminal, code } => ask::no_show(terminal, code).await,
        Command::Inventory { terminal } => watch::inventory(terminal).await,
        Command::Watch { terminal } => watch::watch(terminal).await,
        Command::Incident(incident) => incident::run(incident).await,
        Command::Leftovers(command) => leftovers::run(command).await,
        Command::Supply(supply) => supply::run(supply).await,
    }
}
