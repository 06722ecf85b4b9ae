//! The files a cluster's processes are told by: keys, secrets, one TOML each.

use std::path::Path;

use anyhow::Context as _;

use super::{Options, database};
use crate::processes::Launch;

/// Where one process listens.
pub(super) struct Ports<'a> {
    pub(super) addr: &'a str,
    pub(super) admin: &'a str,
    pub(super) metrics: &'a str,
}

/// Random secrets, made once.
pub(super) fn secrets(folder: &Path) -> anyhow::Result<()> {
    for name in ["internal.key", "page.key", "pepper.key", "draw.key"] {
        let random: [u8; 32] = rand::random();
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Signing keys, their public sets, and the development provider's keys, all by the program's own commands.
pub(super) fn keys(program: &Path, folder: &Path, regions: &[String]) -> anyhow::Result<()> {
    for of in ["permit", "room"] {
        let signing = folder.join(format!("{of}-signing"));
        std::fs::create_dir_all(&signing)?;
        let public = folder.join(format!("{of}_keys.json"));
        Launch::new(format!("keys-{of}"), program, folder)
            .args(["keys", "--signing"])
            .arg(&signing)
            .arg("--public")
            .arg(&public)
            .run()
            .with_context(|| format!("keys of {of}"))?;
    }
    std::fs::create_dir_all(folder.join("receipt-keys"))?;
    for region in regions {
        let signing = folder.join(format!("receipt-signing-{region}"));
        std::fs::create_dir_all(&signing)?;
        Launch::new(format!("keys-receipts-{region}"), program, folder)
            .args(["keys", "--signing"])
            .arg(&signing)
            .arg("--public")
            .arg(folder.join("receipt-keys").join(format!("{region}.json")))
            .run()
            .with_context(|| format!("keys of receipts of {region}"))?;
    }
    Launch::new("provider", program, folder)
        .args([
            "dev-assertion",
            "--sub=nobody",
            "--birthdate=1965-01-01",
            "--data",
        ])
        .arg(folder)
        .run()
        .context("the development provider")
}

fn process(ports: &Ports<'_>, etcd: &[String]) -> String {
    format!(
        "[process.admin]\nlisten = \"{}\"\n[etcd]\nendpoints = {etcd:?}\n",
        ports.metrics
    )
}

pub(super) fn gateway(
    options: &Options,
    etcd: &[String],
    ports: &Ports<'_>,
    number: usize,
) -> String {
    let verify_places = number + options.trusting_gateways < options.gateways;
    let (folder, process) = (options.folder.display(), process(ports, etcd));
    format!(
        "{process}[gateway]\nregions = {:?}\ninternal_key_file = \"{folder}/internal.key\"\n\
         page_key_file = \"{folder}/page.key\"\npermit_keys_file = \"{folder}/permit_keys.json\"\n\
         room_keys_file = \"{folder}/room_keys.json\"\nverify_places = {verify_places}\n[gateway.server]\nlisten = \"{}\"\n",
        options.regions, ports.addr
    )
}

pub(super) fn inventory(
    options: &Options,
    etcd: &[String],
    ports: &Ports<'_>,
    name: &str,
    url: impl Fn(&str) -> String,
) -> anyhow::Result<String> {
    let (folder, process) = (options.folder.display(), process(ports, etcd));
    let mut text = format!(
        "{process}[inventory]\nsingle_copy = true\nbookings_per_second_max = {}\ninternal_key_file = \"{folder}/internal.key\"\n\
         permit_keys_file = \"{folder}/permit_keys.json\"\nroom_keys_file = \"{folder}/room_keys.json\"\n\
         [inventory.server]\nlisten = \"{}\"\n[inventory.admin]\nlisten = \"{}\"\n",
        options.bookings_per_second_max, ports.addr, ports.admin
    );
    for region in &options.regions {
        let file = options.folder.join(format!("{name}-{region}.url"));
        std::fs::write(&file, url(&database(region)))?;
        text.push_str(&format!(
            "[[inventory.regions]]\nregion = \"{region}\"\nshards = {}\nledger_file = \"{}\"\npool_size = 2\n\
             receipt_keys_dir = \"{folder}/receipt-signing-{region}\"\n",
            options.shards,
            file.display()
        ));
    }
    Ok(text)
}

pub(super) fn identity(
    options: &Options,
    etcd: &[String],
    ports: &Ports<'_>,
    url: &str,
) -> anyhow::Result<String> {
    let (folder, process) = (options.folder.display(), process(ports, etcd));
    std::fs::write(options.folder.join("people.url"), url)?;
    Ok(format!(
        "{process}[identity]\naudience = \"doseline\"\ninternal_key_file = \"{folder}/internal.key\"\n\
         pepper_file = \"{folder}/pepper.key\"\ndraw_key_file = \"{folder}/draw.key\"\n\
         permit_keys_dir = \"{folder}/permit-signing\"\nroom_keys_dir = \"{folder}/room-signing\"\n\
         receipt_keys_dir = \"{folder}/receipt-keys\"\n\
         [identity.server]\nlisten = \"{}\"\n[identity.admin]\nlisten = \"{}\"\n\
         [identity.doorkeeper]\nplan_ttl = \"{}s\"\n[identity.people]\nurl_file = \"{folder}/people.url\"\nsingle_copy = true\n\
         [[identity.providers]]\nissuer = \"https://identity.doseline.invalid/development\"\n\
         jwks_file = \"{folder}/development/development_jwks.json\"\ndevelopment = true\n",
        ports.addr, ports.admin, options.plan_ttl_secs
    ))
}
