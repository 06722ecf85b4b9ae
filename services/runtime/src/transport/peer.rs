//! Who is at the other end, by its certificate.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use domain::{CallingSystem, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A calling system as its certificate names it: one SAN URI of the form `doseline://<role>/<system>`.
/// In a request's extensions wherever the connection had a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it may do.
    pub role: PeerRole,
    /// Which one it is.
    pub system: CallingSystem,
    /// When its certificate ends; the connection does not outlive it.
    pub not_after: Timestamp,
}

/// What a calling system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerRole {
    /// The back end of a mobile app.
    Mobile,
    /// A clinic's terminal.
    Clinic,
    /// An operator of the campaign.
    Operator,
    /// Somebody who checks and changes nothing.
    Auditor,
    /// A gateway of ours.
    Gateway,
    /// An inventory of ours.
    Inventory,
    /// An identity service of ours.
    Identity,
}

/// The other end's address. In a request's extensions; never to be recorded, so it does not print.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// Why a certificate names no calling system. Never quotes the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnIdentity {
    /// Not a certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No name of ours in it.
    #[error("the certificate has no URI of the form doseline://role/system")]
    Missing,
    /// More than one.
    #[error("the certificate has more than one doseline URI")]
    Ambiguous,
    /// A name that is not of the form.
    #[error("the certificate's doseline URI is malformed")]
    Malformed,
}

const SCHEME: &str = "doseline://";

impl PeerIdentity {
    /// Of the request with these extensions; `None` without a client certificate.
    #[must_use]
    pub fn of(extensions: &http::Extensions) -> Option<&Self> {
        extensions.get::<Arc<Self>>().map(AsRef::as_ref)
    }

    /// Reads a certificate that was verified already.
    pub fn from_certificate(der: &[u8]) -> Result<Self, NotAnIdentity> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| NotAnIdentity::Unreadable)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| NotAnIdentity::Unreadable)?
            .ok_or(NotAnIdentity::Missing)?;
        let mut ours = names.value.general_names.iter().filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                uri.strip_prefix(SCHEME)
            } else {
                None
            }
        });
        let name = ours.next().ok_or(NotAnIdentity::Missing)?;
        if ours.next().is_some() {
            return Err(NotAnIdentity::Ambiguous);
        }
        let (role, system) = name.split_once('/').ok_or(NotAnIdentity::Malformed)?;
        Ok(Self {
            role: role.parse()?,
            system: system.parse().map_err(|_| NotAnIdentity::Malformed)?,
            not_after: Timestamp::from_secs(certificate.validity().not_after.timestamp()),
        })
    }
}

impl PeerRole {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Mobile,
        Self::Clinic,
        Self::Operator,
        Self::Auditor,
        Self::Gateway,
        Self::Inventory,
        Self::Identity,
    ];

    /// As written in a certificate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Clinic => "clinic",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Gateway => "gateway",
            Self::Inventory => "inventory",
            Self::Identity => "identity",
        }
    }
}

impl fmt::Display for PeerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PeerRole {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(NotAnIdentity::Malformed)
    }
}

impl fmt::Debug for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn read(uris: &[&str]) -> Result<PeerIdentity, NotAnIdentity> {
        let mut params = CertificateParams::new(vec!["app.example".to_owned()]).expect("a name");
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().expect("ASCII")));
        }
        let key = KeyPair::generate().expect("a key");
        PeerIdentity::from_certificate(params.self_signed(&key).expect("a certificate").der())
    }

    #[test]
    fn a_certificate_names_role_and_system() {
        for role in PeerRole::ALL {
            let identity =
                read(&["https://example.org", &format!("doseline://{role}/app-1")]).expect("valid");
            assert_eq!((identity.role, identity.system.as_str()), (role, "app-1"));
        }
    }

    #[test]
    fn anything_else_names_nobody() {
        assert_eq!(read(&[]), Err(NotAnIdentity::Missing));
        assert_eq!(
            read(&["doseline://mobile/a", "doseline://operator/a"]),
            Err(NotAnIdentity::Ambiguous)
        );
        for uri in [
            "doseline://root/a",
            "doseline://mobile",
            "doseline://mobile/",
            "doseline://mobile/a/b",
            "doseline://Mobile/a",
            "doseline://mobile/a?x",
        ] {
            assert_eq!(read(&[uri]), Err(NotAnIdentity::Malformed), "{uri}");
        }
        assert_eq!(
            PeerIdentity::from_certificate(b"no"),
            Err(NotAnIdentity::Unreadable)
        );
    }

    #[test]
    fn an_address_does_not_print() {
        let address = PeerAddr(SocketAddr::from(([203, 0, 113, 9], 4711)));
        assert_eq!(format!("{address:?}"), "[redacted]");
    }
}
