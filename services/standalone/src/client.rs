//! What the command line's clients share: where the gateway is, how they prove themselves, how errors are told.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use domain::name::ClinicName;
use runtime::transport::{ClientSettings, ClientTls, ClientTlsFiles, connect};
use serde::Serialize;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The caller in development mode that was given no name.
const UNNAMED: &str = "dev";

/// Where to call and who calls.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Target {
    /// The gateway, HOST:PORT.
    #[arg(long, env = "DOSELINE_GATEWAY", default_value = "127.0.0.1:7700")]
    pub gateway: String,
    #[command(flatten)]
    pub tls: Tls,
}

/// How a server is verified and how this caller proves itself.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Tls {
    /// PEM file that the server's certificate is verified against; without it the connection is plain.
    #[arg(long, env = "DOSELINE_CA")]
    pub ca: Option<PathBuf>,
    /// PEM file with this caller's certificate.
    #[arg(long, env = "DOSELINE_CERTIFICATE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[arg(long, env = "DOSELINE_KEY", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// File with a signed caller token, instead of a certificate.
    #[arg(long, env = "DOSELINE_CALLER_FILE")]
    pub caller_file: Option<PathBuf>,
    /// Caller to be in development mode, without certificates.
    #[arg(long, default_value = UNNAMED)]
    pub caller: String,
}

/// Adds the caller to every request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    authorization: Option<MetadataValue<Ascii>>,
    development: Option<MetadataValue<Ascii>>,
    role: Option<&'static str>,
}

/// A channel that says who calls.
pub(crate) type Called = tonic::service::interceptor::InterceptedService<Channel, Caller>;

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        if let Some(development) = &self.development {
            metadata.insert("x-doseline-caller", development.clone());
            if let Some(role) = self.role {
                metadata.insert("x-doseline-role", MetadataValue::from_static(role));
            }
        }
        Ok(request)
    }
}

impl Tls {
    /// A channel to `address`.
    pub(crate) fn channel(&self, address: &str) -> anyhow::Result<Channel> {
        let identity = self.certificate.clone().zip(self.key.clone());
        let files = self.ca.clone().map(|ca| ClientTlsFiles {
            ca,
            identity,
            server_name: None,
        });
        let tls = files.map(ClientTls::load).transpose()?;
        Ok(connect(address, tls, &ClientSettings::default())?)
    }

    /// What is added to every request.
    pub(crate) fn interceptor(&self) -> anyhow::Result<Caller> {
        let authorization = match &self.caller_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("{} cannot be read", path.display()))?;
                Some(format!("Bearer {}", text.trim()).parse()?)
            }
        };
        let plain = self.ca.is_none() && authorization.is_none();
        let development = plain.then(|| self.caller.parse()).transpose()?;
        Ok(Caller {
            authorization,
            development,
            role: None,
        })
    }
}

impl Target {
    /// A channel to the gateway for a clinic's terminal; in development mode it says that it is that clinic's.
    pub(crate) fn connect_as_clinic(&self, clinic: &ClinicName) -> anyhow::Result<Called> {
        let mut caller = self.tls.interceptor()?;
        caller.role = Some("clinic");
        if caller.development.is_some() && self.tls.caller == UNNAMED {
            caller.development = Some(clinic.calling_system().parse()?);
        }
        Ok(tonic::service::interceptor::InterceptedService::new(
            self.tls.channel(&self.gateway)?,
            caller,
        ))
    }

    /// A channel to the gateway for an operator; in development mode it says that it is one.
    pub(crate) fn connect_as_operator(&self) -> anyhow::Result<Called> {
        let mut caller = self.tls.interceptor()?;
        caller.role = Some("operator");
        Ok(tonic::service::interceptor::InterceptedService::new(
            self.tls.channel(&self.gateway)?,
            caller,
        ))
    }

    /// A channel to the gateway that says who calls.
    pub(crate) fn connect(&self) -> anyhow::Result<Called> {
        let caller = self.tls.interceptor()?;
        Ok(tonic::service::interceptor::InterceptedService::new(
            self.tls.channel(&self.gateway)?,
            caller,
        ))
    }
}

/// Runs one command and tells how it ended.
pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    // Fails only if a provider is installed already, and there is but one in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => done(runtime.block_on(work)),
        Err(error) => done(Err(error.into())),
    }
}

/// Tells how a command ended: 0 fine, 1 refused or broken.
pub(crate) fn done(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = error
                .downcast_ref::<Status>()
                .map_or_else(|| format!("{error:#}"), explain);
            // Where even standard error is gone, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "error: {told}");
            ExitCode::FAILURE
        }
    }
}

/// A status in words: reason, message, wrong fields, when to come back.
fn explain(status: &Status) -> String {
    let Some(refused) = proto::status::read(status) else {
        return format!("{:?}: {}", status.code(), status.message());
    };
    let mut text = format!("{}: {}", refused.refusal.code(), status.message());
    for (field, problem) in &refused.violations {
        text.push_str(&format!("\n  {field}: {problem}"));
    }
    if let Some(after) = refused.retry_after {
        text.push_str(&format!("\n  try again in {} ms", after.as_millis()));
    }
    if let Some(version) = refused.claim_version {
        text.push_str(&format!("\n  claim_version is {version}"));
    }
    text
}

/// Prints a value as JSON on standard output: for people and for scripts.
pub(crate) fn print(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}
