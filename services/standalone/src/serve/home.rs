//! The data directory: ledgers, people, documents and keys. One process at a time.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::{RegionId, Timestamp};
use identity::Identity;
use identity::config::Assertions;
use identity::development;
use identity::people::sqlite::SqlitePeople;
use identity::person::Blinding;
use runtime::Boot;
use runtime::keyspace::{Keyspace, Session};
use runtime::reload::Reloading;
use runtime::secret::Secret;
use runtime::signing_keys::{self, SigningKeys};
use runtime::transport::Listener;

/// A data directory that this process holds alone.
pub(crate) struct Home {
    folder: PathBuf,
    /// Held as long as the file is open: the operating system gives it up however the process ends.
    _held: File,
}

impl Home {
    /// Makes what is missing and takes the directory.
    pub(crate) fn open(folder: &Path, now: Timestamp) -> anyhow::Result<Self> {
        fs::create_dir_all(folder.join("ledger"))
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let held = File::create(folder.join("in-use"))?;
        held.try_lock()
            .with_context(|| format!("{} is in use by another process", folder.display()))?;
        let home = Self {
            folder: folder.to_owned(),
            _held: held,
        };
        for name in ["internal.key", "page.key", "pepper.key", "draw.key"] {
            secret(&folder.join(name))?;
        }
        for (signing, public) in [
            ("permit-signing", "permit_keys.json"),
            ("room-signing", "room_keys.json"),
        ] {
            let (signing, public) = (folder.join(signing), folder.join(public));
            if !public.exists() {
                fs::create_dir_all(&signing)?;
                identity::keys::generate(&signing, now)?;
                identity::keys::publish(&signing, &public)?;
            }
        }
        Ok(home)
    }

    /// The development identity provider.
    pub(crate) fn development(&self) -> PathBuf {
        self.folder.join("development")
    }

    /// Documents.
    pub(crate) fn keyspace(&self) -> PathBuf {
        self.folder.join("documents.sqlite")
    }

    /// A region's ledger.
    pub(crate) fn ledger(&self, region: &RegionId) -> PathBuf {
        self.folder.join("ledger").join(format!("{region}.sqlite"))
    }

    /// Public keys of permits.
    pub(crate) fn permit_keys(&self) -> PathBuf {
        self.folder.join("permit_keys.json")
    }

    /// Public keys of rooms.
    pub(crate) fn room_keys(&self) -> PathBuf {
        self.folder.join("room_keys.json")
    }

    /// The keys of a region's receipts; made with their public halves where there are none.
    pub(crate) fn receipt_keys(
        &self,
        region: &RegionId,
        now: Timestamp,
    ) -> anyhow::Result<Reloading<SigningKeys>> {
        let signing = self.folder.join("receipt-signing").join(region.as_str());
        let public = self
            .folder
            .join("receipt-keys")
            .join(format!("{region}.json"));
        if !public.exists() {
            fs::create_dir_all(self.folder.join("receipt-keys"))?;
            signing_keys::generate(&signing, now)?;
            signing_keys::publish(&signing, &public)?;
        }
        Ok(SigningKeys::follow(&signing, now)?)
    }

    /// Starts identity on this directory. Operators' providers would be configured in cluster mode; here the only
    /// one is the development provider, and only with `--dev`.
    pub(crate) fn start_identity(
        &self,
        keyspace: Keyspace,
        session: Session,
        listener: &Listener,
        dev: bool,
        boot: &Boot,
    ) -> anyhow::Result<Identity> {
        let metrics = identity::metrics::Metrics::register(&boot.registry);
        let people = self.folder.join("people.sqlite");
        let people = SqlitePeople::open(&people, &boot.tasks, boot.clock.clone(), metrics.clone())?;
        let mut providers = Vec::new();
        if dev {
            let provider = development::Provider::load_or_create(&self.development())?;
            providers.push((
                development::ISSUER.to_owned(),
                provider.jwks_file().to_owned(),
            ));
        }
        let pepper = secret(&self.folder.join("pepper.key"))?;
        let draw_key = secret(&self.folder.join("draw.key"))?;
        let parts = identity::Parts {
            instance: "embedded".parse()?,
            advertise: listener.local_addr().to_string(),
            keyspace,
            session,
            people: Arc::new(people),
            internal_key: self.internal_key()?,
            gateway_certificates: false,
            operator_certificates: false,
            blinding: Blinding::new(pepper, draw_key)?,
            permit_keys_dir: self.folder.join("permit-signing"),
            room_keys_dir: self.folder.join("room-signing"),
            receipt_keys_dir: Some(self.folder.join("receipt-keys")),
            assertions: Assertions {
                audience: "doseline".to_owned(),
                max_age: Duration::from_secs(3_600),
                providers,
            },
            worker_threads: 1,
            services: None,
            doorkeeper: identity::doorkeeper::settings::Settings::default(),
            metrics,
        };
        identity::start(parts, boot)
    }

    /// The secret shared by all parts.
    pub(crate) fn internal_key(&self) -> anyhow::Result<Secret> {
        secret(&self.folder.join("internal.key"))
    }

    /// The key of page tokens.
    pub(crate) fn page_key(&self) -> anyhow::Result<Secret> {
        secret(&self.folder.join("page.key"))
    }
}

/// Reads a secret; makes a random one where there is none.
fn secret(path: &Path) -> anyhow::Result<Secret> {
    if !path.exists() {
        let random: [u8; 32] = rand::random();
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        // Written aside and renamed: a crash leaves no half secret.
        let aside = path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Secret::new(text.trim().as_bytes().to_vec()))
}
