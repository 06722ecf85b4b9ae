//! From a request's head to the calling system: certificate first, then a signed JWT; headers only in development.

use domain::{Refusal, Timestamp};
use http::HeaderMap;
use runtime::transport::{PeerIdentity, PeerRole};

use super::{CALLER_HEADER, Caller, JwtCallers, ROLE_HEADER, Role};

/// What somebody at a screen has to show, to be recognised as the calling system they sit at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// `--dev`: its name.
    Name,
    /// A signed JWT, unless the browser has a client certificate.
    Credential,
    /// The browser's client certificate.
    Certificate,
}

/// How calling systems are recognised. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Callers(Source);

#[derive(Clone, Debug)]
enum Source {
    /// `--dev`: whoever they say they are.
    Believed,
    /// By certificate, or by JWT where a key set is configured.
    Proven(Option<JwtCallers>),
}

impl Callers {
    /// Believes headers: on a developer's machine only.
    #[must_use]
    pub const fn believed() -> Self {
        Self(Source::Believed)
    }

    /// Believes client certificates and, with a key set, signed JWTs.
    #[must_use]
    pub const fn proven(jwt: Option<JwtCallers>) -> Self {
        Self(Source::Proven(jwt))
    }

    /// What somebody at a screen has to show.
    pub(crate) const fn shows(&self) -> Shows {
        match &self.0 {
            Source::Believed => Shows::Name,
            Source::Proven(Some(_)) => Shows::Credential,
            Source::Proven(None) => Shows::Certificate,
        }
    }

    /// Who sits at a screen: by the connection's certificate, else by what was typed. With the moment from which on that
    /// proves nothing any more, where it ends.
    pub(crate) fn sign_in(
        &self,
        typed: &str,
        extensions: &http::Extensions,
    ) -> Result<(Caller, Option<Timestamp>), Refusal> {
        if let Some(peer) = PeerIdentity::of(extensions) {
            let caller = Caller {
                system: peer.system.clone(),
                role: public(peer.role)?,
            };
            return Ok((caller, Some(peer.not_after)));
        }
        match &self.0 {
            Source::Believed => {
                let caller = Caller {
                    system: typed.parse().map_err(|_| Refusal::CallerUnknown)?,
                    role: Role::Clinic,
                };
                Ok((caller, None))
            }
            Source::Proven(Some(jwt)) => {
                let proven = jwt.verify_until(typed).ok_or(Refusal::CallerUnknown)?;
                Ok((proven.0, Some(Timestamp::from_secs(proven.1))))
            }
            Source::Proven(None) => Err(Refusal::CallerUnknown),
        }
    }

    /// Who sends this request.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        extensions: &http::Extensions,
    ) -> Result<Caller, Refusal> {
        let peer = PeerIdentity::of(extensions);
        match (&self.0, peer) {
            (_, Some(peer)) => Ok(Caller {
                system: peer.system.clone(),
                role: public(peer.role)?,
            }),
            (Source::Believed, None) => believe(headers),
            (Source::Proven(Some(jwt)), None) => bearer(headers)
                .and_then(|text| jwt.verify(text))
                .ok_or(Refusal::CallerUnknown),
            (Source::Proven(None), None) => Err(Refusal::CallerUnknown),
        }
    }
}

fn public(role: PeerRole) -> Result<Role, Refusal> {
    match role {
        PeerRole::Mobile => Ok(Role::Mobile),
        PeerRole::Clinic => Ok(Role::Clinic),
        PeerRole::Operator => Ok(Role::Operator),
        PeerRole::Auditor => Ok(Role::Auditor),
        PeerRole::Gateway | PeerRole::Inventory | PeerRole::Identity => {
            Err(Refusal::CallerForbidden)
        }
    }
}

fn believe(headers: &HeaderMap) -> Result<Caller, Refusal> {
    let text = |name| match headers.get(name) {
        None => Ok(None),
        Some(value) => value.to_str().map(Some).map_err(|_| Refusal::CallerUnknown),
    };
    let system = text(CALLER_HEADER)?.unwrap_or("dev");
    let role = text(ROLE_HEADER)?.unwrap_or("mobile");
    Ok(Caller {
        system: system.parse().map_err(|_| Refusal::CallerUnknown)?,
        role: Role::from_name(role).ok_or(Refusal::CallerUnknown)?,
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(credential.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).parse().expect("name"), (*v).parse().expect("value")))
            .collect()
    }

    #[test]
    fn headers_count_in_development_only() {
        let named = headers(&[(CALLER_HEADER, "app-1"), (ROLE_HEADER, "clinic")]);
        let none = http::Extensions::new();
        let caller = Callers::believed()
            .identify(&named, &none)
            .expect("believed");
        assert_eq!(
            (caller.system.as_str(), caller.role),
            ("app-1", Role::Clinic)
        );
        assert_eq!(
            Callers::proven(None).identify(&named, &none),
            Err(Refusal::CallerUnknown)
        );
        let nobody = Callers::believed()
            .identify(&HeaderMap::new(), &none)
            .expect("believed");
        assert_eq!((nobody.system.as_str(), nobody.role), ("dev", Role::Mobile));
    }

    #[test]
    fn a_strange_header_is_nobody() {
        let none = http::Extensions::new();
        for pair in [
            (CALLER_HEADER, "No Slug"),
            (ROLE_HEADER, "root"),
            (ROLE_HEADER, "gateway"),
        ] {
            let got = Callers::believed().identify(&headers(&[pair]), &none);
            assert_eq!(got, Err(Refusal::CallerUnknown), "{pair:?}");
        }
    }

    #[test]
    fn a_certificate_counts_before_anything_else() {
        let peer = PeerIdentity {
            role: PeerRole::Clinic,
            system: "terminal-9".parse().expect("slug"),
            not_after: domain::Timestamp::from_secs(0),
        };
        let mut extensions = http::Extensions::new();
        extensions.insert(std::sync::Arc::new(peer));
        let named = headers(&[(CALLER_HEADER, "app-1"), (ROLE_HEADER, "operator")]);
        for callers in [Callers::proven(None), Callers::believed()] {
            let caller = callers.identify(&named, &extensions).expect("proven");
            assert_eq!(
                (caller.system.as_str(), caller.role),
                ("terminal-9", Role::Clinic)
            );
        }
    }

    #[test]
    fn our_own_services_are_no_callers_of_the_public_api() {
        for role in [PeerRole::Gateway, PeerRole::Inventory, PeerRole::Identity] {
            assert_eq!(public(role), Err(Refusal::CallerForbidden));
        }
    }
}
