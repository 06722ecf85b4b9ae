//! Certificates: who gets in, as whom, and what happens when files change.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, date_time_ymd,
};
use tokio::io::AsyncReadExt;

use super::*;
use crate::transport::ClientCertificates::{self, Optional, Required};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    fn issue(&self, uri: Option<&str>, expired: bool) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params
            .subject_alt_names
            .extend(uri.map(|uri| SanType::URI(uri.try_into().expect("ASCII"))));
        if expired {
            params.not_after = date_time_ymd(2021, 7, 12);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A folder with the files of one end.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Replaces a file as a mounted secret is replaced: by another that takes its name.
    fn put(&self, name: &str, content: &str) -> PathBuf {
        let (path, next) = (self.0.path().join(name), self.0.path().join("next"));
        std::fs::write(&next, content).expect("writable");
        std::fs::rename(&next, &path).expect("same folder");
        path
    }

    fn server(&self, ca: &Authority, client_certificates: ClientCertificates) -> ServerTlsFiles {
        let (certificate, key) = ca.issue(None, false);
        ServerTlsFiles {
            certificate: self.put("server.pem", &certificate),
            key: self.put("server.key", &key),
            client_ca: Some(self.put("client-ca.pem", &ca.0.pem())),
            client_certificates,
        }
    }

    fn client(&self, ca: &Authority, identity: Option<(String, String)>) -> ClientTls {
        let identity = identity
            .map(|(cert, key)| (self.put("client.pem", &cert), self.put("client.key", &key)));
        let ca = self.put("ca.pem", &ca.0.pem());
        ClientTls::load(ClientTlsFiles {
            ca,
            identity,
            server_name: None,
        })
        .expect("good files")
    }
}

async fn serving(
    files: &Files,
    ca: &Authority,
    wanted: ClientCertificates,
) -> (Running, ServerTls) {
    let tls = ServerTls::load(files.server(ca, wanted)).expect("good files");
    (
        start(Limits::default(), Some(tls.clone()), PATIENCE).await,
        tls,
    )
}

async fn try_as(it: &Running, client: ClientTls) -> Result<Code, Status> {
    call(&channel(it.address, Some(client)), ECHO).await
}

#[tokio::test]
async fn the_handler_learns_role_and_system_from_the_certificate() {
    let (files, ca) = (Files::new(), Authority::new());
    let (it, _) = serving(&files, &ca, Required).await;
    let identity = ca.issue(Some("doseline://clinic/1168-0042"), false);
    assert_eq!(
        try_as(&it, files.client(&ca, Some(identity)))
            .await
            .expect("served"),
        Code::Ok
    );
    let identities = it.seen.identities.lock().expect("not poisoned");
    let Some(Some(identity)) = identities.first() else {
        panic!("no identity")
    };
    assert_eq!(
        (identity.role, identity.system.as_str()),
        (PeerRole::Clinic, "1168-0042")
    );
}

#[tokio::test]
async fn nobody_gets_in_with_a_wrong_certificate() {
    let (files, ca, stranger) = (Files::new(), Authority::new(), Authority::new());
    let (it, _) = serving(&files, &ca, Required).await;
    let name = Some("doseline://mobile/app-1");
    for (case, identity) in [
        ("none", None),
        ("another CA's", Some(stranger.issue(name, false))),
        ("expired", Some(ca.issue(name, true))),
        ("without a name of ours", Some(ca.issue(None, false))),
        (
            "with an unknown role",
            Some(ca.issue(Some("doseline://root/app-1"), false)),
        ),
    ] {
        let answer = try_as(&it, files.client(&ca, identity)).await;
        assert!(answer.is_err(), "{case}: {answer:?}");
    }
    assert!(
        it.seen.identities.lock().expect("not poisoned").is_empty(),
        "no request came through"
    );
}

#[tokio::test]
async fn an_optional_certificate_is_verified_where_there_is_one() {
    let (files, ca, stranger) = (Files::new(), Authority::new(), Authority::new());
    let (it, _) = serving(&files, &ca, Optional).await;
    assert_eq!(
        try_as(&it, files.client(&ca, None)).await.expect("served"),
        Code::Ok
    );
    assert_eq!(*it.seen.identities.lock().expect("not poisoned"), [None]);
    let identity = stranger.issue(Some("doseline://mobile/app-1"), false);
    assert!(
        try_as(&it, files.client(&ca, Some(identity)))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_authority() {
    let (files, ca, stranger) = (Files::new(), Authority::new(), Authority::new());
    let (it, _) = serving(&files, &ca, Optional).await;
    assert!(
        try_as(&it, Files::new().client(&stranger, None))
            .await
            .is_err()
    );
    assert!(
        call(&channel(it.address, None), ECHO).await.is_err(),
        "nor without TLS"
    );
}

#[tokio::test]
async fn replaced_files_count_for_new_connections_and_not_for_old_ones() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let (it, tls) = serving(&files, &old, Required).await;
    let name = Some("doseline://mobile/app-1");
    let (old_files, new_files) = (Files::new(), Files::new());
    let old_client = old_files.client(&old, Some(old.issue(name, false)));
    let connected = channel(it.address, Some(old_client.clone()));
    assert_eq!(call(&connected, ECHO).await.expect("served"), Code::Ok);

    // Half a rotation: the certificate is new, its key not yet. The last good files count.
    let (certificate, key) = new.issue(None, false);
    files.put("client-ca.pem", &new.0.pem());
    files.put("server.pem", &certificate);
    assert!(!tls.check());
    assert_eq!(
        try_as(&it, old_client.clone()).await.expect("served"),
        Code::Ok
    );

    files.put("server.key", &key);
    assert!(tls.check());
    assert_eq!(
        call(&connected, ECHO).await.expect("still served"),
        Code::Ok
    );
    let old_again = try_as(&it, old_client.clone()).await;
    assert!(
        old_again.is_err(),
        "the old authority is gone: {old_again:?}"
    );
    let new_client = new_files.client(&new, Some(new.issue(name, false)));
    assert_eq!(try_as(&it, new_client).await.expect("served"), Code::Ok);

    // The client's files follow as well.
    let (certificate, key) = new.issue(name, false);
    old_files.put("client.pem", &certificate);
    old_files.put("client.key", &key);
    old_files.put("ca.pem", &new.0.pem());
    assert!(old_client.check());
    assert_eq!(try_as(&it, old_client).await.expect("served"), Code::Ok);
}

#[tokio::test]
async fn watching_finds_replaced_files_by_itself() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let (it, tls) = serving(&files, &old, Optional).await;
    let watching = tls.watch(&it.tasks, &it.drain);
    files.server(&new, Optional);
    let client = Files::new().client(&new, None);
    within(async {
        while try_as(&it, client.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    it.drain.start(Cause::Requested);
    within(watching.ended()).await;
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_given_up() {
    let (files, ca) = (Files::new(), Authority::new());
    let tls = ServerTls::load(files.server(&ca, Required)).expect("good files");
    let limits = Limits {
        handshake_within: Duration::from_millis(50),
        ..Limits::default()
    };
    let it = start(limits, Some(tls), PATIENCE).await;
    let mut silent = TcpStream::connect(it.address)
        .await
        .expect("the kernel accepts");
    let mut byte = [0];
    let read = within(silent.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[test]
fn unusable_files_are_named_and_never_quoted() {
    let (files, ca) = (Files::new(), Authority::new());
    let mut named = files.server(&ca, Required);
    named.client_ca = None;
    assert!(matches!(
        ServerTls::load(named.clone()),
        Err(TlsFault::NoClientCa)
    ));
    named.client_certificates = ClientCertificates::Ignored;
    files.put("server.key", "canary-777");
    let error = ServerTls::load(named.clone()).expect_err("no key");
    let text = crate::fields::chain(&error);
    assert!(
        text.contains("server.key") && !text.contains("canary"),
        "{text}"
    );
    named.certificate = files.put("server.pem", "");
    assert!(matches!(
        ServerTls::load(named),
        Err(TlsFault::Empty { .. })
    ));
}
