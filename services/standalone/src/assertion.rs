//! Identity assertions for development: signed with a key that production refuses to trust.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use identity::development::Provider;
use jiff::civil::Date;
use runtime::Clock;

/// `doseline dev-assertion`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory of `doseline serve --dev`, or a folder with a provider's key.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// The person's identifier at the provider.
    #[arg(long)]
    sub: String,
    /// The birth date, YYYY-MM-DD.
    #[arg(long)]
    birthdate: Date,
    /// For whom the assertion is.
    #[arg(long, default_value = "doseline")]
    audience: String,
    /// Seconds it is good for.
    #[arg(long, default_value_t = 300)]
    ttl_secs: u64,
}

/// Prints one assertion.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let provider = Provider::load_or_create(&args.data.join("development"))?;
    let ttl = Duration::from_secs(args.ttl_secs);
    let now = Clock::system().wall();
    let text = provider.sign(&args.sub, args.birthdate, &args.audience, now, ttl);
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
