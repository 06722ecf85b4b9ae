//! TLS with client certificates, and login by user and password.

use std::path::{Path, PathBuf};

use etcd_client::PermissionType;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use runtime::keyspace::{EtcdConfig, EtcdTls, Fault, Keyspace};

use super::launcher::Etcd;
use super::{await_until, config, soon};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("writes");
    path
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs")
}

/// A certificate and its key, as files.
fn identity(
    ca: &CertifiedIssuer<'static, KeyPair>,
    folder: &Path,
    name: &str,
) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(names).expect("sound names");
    let certificate = params.signed_by(&key, ca).expect("signs");
    (
        write(folder, &format!("{name}.pem"), &certificate.pem()),
        write(folder, &format!("{name}.key"), &key.serialize_pem()),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_client_certificates_works_and_is_required() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = authority();
    let ca_file = write(folder.path(), "ca.pem", &ca.pem());
    let (server, server_key) = identity(&ca, folder.path(), "server");
    let client = identity(&ca, folder.path(), "client");
    let mut etcd = Etcd::prepare(1).with_tls([
        format!("--cert-file={}", server.display()),
        format!("--key-file={}", server_key.display()),
        format!("--trusted-ca-file={}", ca_file.display()),
        "--client-cert-auth".to_owned(),
    ]);
    etcd.run_all();
    let tls = EtcdTls {
        ca_file,
        identity: Some(client),
        server_name: None,
    };
    let with = |tls| EtcdConfig {
        tls: Some(tls),
        ..config(&etcd)
    };
    let keyspace = Keyspace::etcd(with(tls.clone())).await.expect("sound");
    await_until("a write over TLS", async || {
        keyspace.put("/k", "x").await.is_ok()
    })
    .await;
    let mut mirror = keyspace.mirror("/");
    soon("a listing over TLS", mirror.ready()).await;
    assert!(mirror.snapshot().contains_key("/k"));

    let stranger = with(EtcdTls {
        identity: None,
        ..tls.clone()
    });
    let stranger = Keyspace::etcd(stranger).await.expect("sound");
    assert!(
        stranger.get("/k").await.is_err(),
        "no certificate, no answer"
    );
    let other_ca = write(folder.path(), "other.pem", &authority().pem());
    let deceived = with(EtcdTls {
        ca_file: other_ca,
        ..tls.clone()
    });
    let deceived = Keyspace::etcd(deceived).await.expect("sound");
    assert!(
        deceived.get("/k").await.is_err(),
        "an etcd of another authority is not believed"
    );
    let missing = with(EtcdTls {
        ca_file: folder.path().join("none.pem"),
        ..tls
    });
    assert!(matches!(
        Keyspace::etcd(missing).await,
        Err(Fault::Invalid { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_gives_the_rights_of_its_user_and_no_more() {
    let etcd = Etcd::start().await;
    let mut operator = etcd.operator().await;
    operator
        .user_add("root", "root-secret", None)
        .await
        .expect("adds");
    operator
        .user_grant_role("root", "root")
        .await
        .expect("grants");
    operator.role_add("reader").await.expect("adds");
    let rights = etcd_client::Permission::new(PermissionType::Read, "/m/").with_prefix();
    operator
        .role_grant_permission("reader", rights)
        .await
        .expect("grants");
    operator
        .user_add("gateway", "gate:secret", None)
        .await
        .expect("adds");
    operator
        .user_grant_role("gateway", "reader")
        .await
        .expect("grants");
    operator.put("/m/k", "x", None).await.expect("writes");
    operator.auth_enable().await.expect("enables");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let login = |name: &str, line: &str| EtcdConfig {
        credentials_file: Some(write(folder.path(), name, line)),
        ..config(&etcd)
    };
    let gateway = Keyspace::etcd(login("gateway", "gateway:gate:secret\n"))
        .await
        .expect("sound");
    let mut mirror = gateway.mirror("/m/");
    soon("a listing", mirror.ready()).await;
    assert!(mirror.snapshot().contains_key("/m/k"));
    let forbidden = gateway.put("/m/k", "y").await;
    assert!(
        matches!(forbidden, Err(Fault::Invalid { .. })),
        "{forbidden:?}"
    );
    let root = Keyspace::etcd(login("root", "root:root-secret"))
        .await
        .expect("sound");
    root.put("/m/k", "y").await.expect("writes");
    await_until("the change", async || {
        mirror.snapshot()["/m/k"].value == "y"
    })
    .await;
    let wrong = Keyspace::etcd(login("wrong", "root:guess"))
        .await
        .expect("reads the file");
    let refused = wrong.put("/m/k", "z").await.expect_err("is refused");
    assert!(
        !format!("{refused:?}").contains("guess"),
        "no password in an error"
    );
}
