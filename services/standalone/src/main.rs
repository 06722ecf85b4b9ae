//! The one binary: every role, all roles in one process, and the operator's and terminal's command line.

mod admin;
mod assertion;
mod booking;
mod client;
mod clinic;
mod demo;
mod equivalence;
mod leftovers;
mod population;
mod room;
mod rush;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime::config::Args as ConfigArgs;

/// One allocator for every role: prost and hyper allocate for every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives out vaccination appointments when millions want one at the same second.
#[derive(Parser)]
#[command(name = "doseline", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all roles in one process on one data directory; nothing to install.
    Serve(serve::Args),
    /// Run the public face (cluster mode).
    Gateway(ConfigArgs),
    /// Run an owner of shards (cluster mode).
    Inventory(ConfigArgs),
    /// Run the identity service (cluster mode).
    Identity(ConfigArgs),
    /// Campaigns: apply, show.
    #[command(subcommand)]
    Campaign(admin::CampaignCommand),
    /// Clinics: apply documents as an operator; as a clinic's terminal stock, slots, day sheet, check-in, doses; supply.
    #[command(subcommand)]
    Clinic(clinic::Command),
    /// A cohort's room: the steps of its draw, doors, pauses, speeds, export, audit, simulate.
    #[command(subcommand)]
    Room(admin::RoomCommand),
    /// Sign an identity assertion with the development provider.
    DevAssertion(assertion::Args),
    /// Make the keys a cluster needs.
    Keys(admin::KeysArgs),
    /// Ask for a permit.
    Permit(booking::PermitArgs),
    /// Change to another region of the campaign, keeping the place in line.
    ChangeRegion(booking::ChangeRegionArgs),
    /// List slots with places left.
    Slots(booking::SlotsArgs),
    /// Book one slot, or dose 1 and dose 2 at one clinic.
    Book(booking::BookArgs),
    /// Move one appointment to another slot.
    Move(booking::MoveArgs),
    /// Give up a booking or one dose of it.
    Cancel(booking::CancelArgs),
    /// Leftover doses as a person: join, leave, offers, answer.
    #[command(subcommand)]
    Leftovers(leftovers::Command),
    /// Show the permit holder's booking.
    Booking(booking::GetArgs),
    /// Replay an opening against a running gateway and judge it from the ledgers.
    Rush(Box<rush::Args>),
    /// Serve and rush in one go, on a fresh data directory.
    Demo(demo::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::main(args),
        Command::Gateway(args) => {
            runtime::boot::<gateway::config::Raw, _, _>("gateway", &args, gateway::run)
        }
        Command::Inventory(args) => {
            runtime::boot::<inventory::config::Raw, _, _>("inventory", &args, inventory::run)
        }
        Command::Identity(args) => {
            runtime::boot::<identity::config::Raw, _, _>("identity", &args, identity::run)
        }
        Command::Campaign(command) => client::block_on(admin::campaign(command)),
        Command::Clinic(command) => client::block_on(clinic::run(command)),
        Command::Room(command) => client::block_on(admin::room(command)),
        Command::DevAssertion(args) => client::done(assertion::run(&args)),
        Command::Keys(args) => client::done(admin::keys(&args)),
        Command::Permit(args) => client::block_on(booking::permit(args)),
        Command::ChangeRegion(args) => client::block_on(booking::change_region(args)),
        Command::Slots(args) => client::block_on(booking::slots(args)),
        Command::Book(args) => client::block_on(booking::book(args)),
        Command::Move(args) => client::block_on(booking::move_booking(args)),
        Command::Leftovers(command) => client::block_on(leftovers::run(command)),
        Command::Cancel(args) => client::block_on(booking::cancel(args)),
        Command::Booking(args) => client::block_on(booking::get(args)),
        Command::Rush(args) => rush::main(*args),
        Command::Demo(args) => demo::main(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn every_command_and_flag_is_well_formed() {
        Cli::command().debug_assert();
    }
}
