//! Configuration in layers: defaults < TOML file < `DOSELINE__SECTION__KEY` < `--set key=value`.
//!
//! Invariant: nothing else reads the environment, and a bad configuration is reported whole, key by key,
//! before anything starts.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

mod layers;
mod problems;
mod process;
mod units;

pub use problems::{Invalid, Problem, Problems};
pub use process::{
    Admin, LogFormat, Process, RawAdmin, RawProcess, RawTelemetry, TelemetrySettings,
};
pub use units::{HumanDuration, HumanSize};

use layers::Tree;

/// What stands in a file: every container has `#[serde(default, deny_unknown_fields)]`, so that defaults are the
/// lowest layer and one bad key does not hide the next.
pub trait RawConfig: DeserializeOwned + Serialize + Default {
    /// What the program gets: bounded, non-zero, cross-checked.
    type Config;

    /// Reports everything that is wrong, and gives the configuration if nothing hindered building it.
    /// It is used only when no problem was reported at all.
    fn validate(self, problems: &mut Problems) -> Option<Self::Config>;
}

/// The flags every role has.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// One setting, over file and environment; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
    /// Allow what is unsafe outside a developer's machine: no TLS, development identities, fixed keys.
    #[arg(long, global = true)]
    pub dev: bool,
    /// Report every problem of the configuration, then exit.
    #[arg(long, global = true)]
    pub check_config: bool,
    /// Print the configuration as it would be used, secrets left out, then exit.
    #[arg(long, global = true)]
    pub print_config: bool,
}

/// The layers above the defaults, lowest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    file: Option<PathBuf>,
    text: Option<String>,
    environment: Vec<(OsString, OsString)>,
    overrides: Vec<String>,
    dev: bool,
}

/// A configuration without problems.
#[derive(Clone, Debug)]
pub struct Loaded<R: RawConfig> {
    /// What the program gets.
    pub config: R::Config,
    /// The effective settings as TOML, secrets redacted: what `--print-config` shows.
    pub printed: String,
}

// === impl Layers ===

impl Layers {
    /// Defaults only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All layers that `args` and this process's environment name.
    #[must_use]
    pub fn from_args(args: &Args) -> Self {
        let mut layers = Self::new().environment().dev(args.dev);
        layers.file.clone_from(&args.config);
        layers.overrides.clone_from(&args.set);
        layers
    }

    /// Adds a TOML file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Adds TOML given as text, in the file's place.
    #[must_use]
    pub fn text(mut self, toml: impl Into<String>) -> Self {
        self.text = Some(toml.into());
        self
    }

    /// Adds this process's environment.
    #[must_use]
    pub fn environment(mut self) -> Self {
        self.environment.extend(std::env::vars_os());
        self
    }

    /// Adds variables as if they stood in the environment.
    #[must_use]
    pub fn variables<K, V>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        self.environment
            .extend(variables.into_iter().map(|(k, v)| (k.into(), v.into())));
        self
    }

    /// Adds one `key=value`, the key dotted.
    #[must_use]
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.overrides.push(setting.into());
        self
    }

    /// Allows unsafe choices (`--dev`).
    #[must_use]
    pub fn dev(mut self, dev: bool) -> Self {
        self.dev = dev;
        self
    }

    /// Merges, deserialises and validates; reports all problems of all three at once.
    pub fn load<R: RawConfig>(self) -> Result<Loaded<R>, Invalid> {
        let mut problems = Problems::new(self.dev);
        let mut tree = Tree::default();
        if let Some(path) = &self.file {
            tree.add_file(path, &mut problems);
        }
        if let Some(text) = &self.text {
            tree.add_text(text, "the given text", &mut problems);
        }
        tree.add_environment(&self.environment, &mut problems);
        for setting in &self.overrides {
            tree.add_override(setting, &mut problems);
        }
        let Some(raw) = tree.read::<R>(&mut problems) else {
            return Err(problems.into_invalid());
        };
        let printed = toml::to_string_pretty(&raw)
            .unwrap_or_else(|error| format!("# cannot be printed: {error}\n"));
        let config = raw.validate(&mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(Loaded { config, printed }),
            Some(_) => Err(problems.into_invalid()),
            None => {
                if problems.is_empty() {
                    problems.report("", "the configuration was refused without a reason");
                }
                Err(problems.into_invalid())
            }
        }
    }
}

#[cfg(test)]
mod tests;
