//! Who is signed in, without keeping anything: a signed cookie, good for half an hour after the last page, and never
//! longer than the credential it was made from.
//!
//! Invariant: a cookie and a form are believed only with the fleet's key; a form only in the session it was made for.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use domain::name::ClinicName;
use domain::{CallingSystem, Timestamp};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::callers::{Caller, Role};

/// Nobody stays signed in at a screen that nobody uses.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A working day; after it one signs in again.
const WHOLE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// A cookie is renewed when it has less than this left.
const RENEW_BELOW: Duration = Duration::from_secs(25 * 60);
const COOKIE_LENGTH_MAX: usize = 512;
const FORM: &[u8] = b"form";
const COOKIE: &[u8] = b"cookie";
/// In no part of a cookie.
const BETWEEN: char = '~';
const VERSION: &str = "1";

/// Makes and believes sessions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sessions {
    key: Hmac<Sha256>,
    /// Whether browsers send the cookie over TLS only.
    secure: bool,
}

/// Somebody at a clinic's screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) clinic: ClinicName,
    system: CallingSystem,
    /// Not used after this unless renewed.
    pub(super) until: Timestamp,
    /// Not renewed beyond this.
    last: Timestamp,
    nonce: u64,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Session {
    /// Who calls, where this session asks for something.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            system: self.system.clone(),
            role: Role::Clinic,
        }
    }
}

impl Sessions {
    /// With a key of its own made from the key that all gateways share.
    pub(super) fn new(shared: &[u8], secure: bool) -> Self {
        let mut of =
            Hmac::<Sha256>::new_from_slice(shared).expect("HMAC takes a key of any length");
        of.update(b"doseline/web/session/v1");
        let key = of.finalize().into_bytes();
        Self {
            key: Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"),
            secure,
        }
    }

    /// A session of a clinic's calling system; `None` for a system that is no clinic's.
    pub(super) fn open(
        &self,
        system: CallingSystem,
        proven_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Session> {
        let clinic = clinic_of(&system)?;
        let whole = now.plus(WHOLE_MAX);
        let last = proven_until.map_or(whole, |until| until.min(whole));
        Some(Session {
            clinic,
            system,
            until: now.plus(IDLE_MAX).min(last),
            last,
            nonce: rand::random(),
        })
    }

    /// The session of a request's cookie header.
    pub(super) fn of(&self, cookies: &str, now: Timestamp) -> Option<Session> {
        let value = cookie(cookies, self.cookie_name())?;
        if value.len() > COOKIE_LENGTH_MAX {
            return None;
        }
        let (text, mac) = value.rsplit_once(BETWEEN)?;
        let mac = B64.decode(mac).ok()?;
        self.mac(COOKIE, text.as_bytes()).verify_slice(&mac).ok()?;
        let mut parts = text.split(BETWEEN);
        let mut next = || parts.next();
        let (VERSION, system) = (next()?, next()?.parse::<CallingSystem>().ok()?) else {
            return None;
        };
        let mut number = || next()?.parse::<i64>().ok();
        let (until, last) = (number()?, number()?);
        let nonce = u64::from_str_radix(next()?, 16).ok()?;
        let session = Session {
            clinic: clinic_of(&system)?,
            system,
            until: Timestamp::from_secs(until),
            last: Timestamp::from_secs(last),
            nonce,
        };
        (now < session.until).then_some(session)
    }

    /// The same session with more time, if it is worth another cookie.
    pub(super) fn renewed(&self, session: &Session, now: Timestamp) -> Option<Session> {
        let until = now.plus(IDLE_MAX).min(session.last);
        let worth = session.until.since(now) < RENEW_BELOW && until > session.until;
        worth.then(|| Session {
            until,
            ..session.clone()
        })
    }

    /// The header that gives a session to a browser.
    pub(super) fn set_cookie(&self, session: &Session, now: Timestamp) -> String {
        let text = [
            VERSION,
            session.system.as_str(),
            &session.until.as_secs().to_string(),
            &session.last.as_secs().to_string(),
            &format!("{:016x}", session.nonce),
        ]
        .join("~");
        let mac = B64.encode(self.mac(COOKIE, text.as_bytes()).finalize().into_bytes());
        let age = session.until.since(now).as_secs();
        self.header(&format!("{text}{BETWEEN}{mac}"), age)
    }

    /// The header that takes it away again.
    pub(super) fn clear_cookie(&self) -> String {
        self.header("", 0)
    }

    /// What a form of this session carries to show that it was ours.
    pub(super) fn form_key(&self, session: &Session) -> String {
        let mac = self.form_mac(session).finalize().into_bytes();
        B64.encode(&mac[..16])
    }

    /// Whether a form was made for this session.
    pub(super) fn is_form_of(&self, session: &Session, key: &str) -> bool {
        B64.decode(key)
            .ok()
            .filter(|mac| mac.len() == 16)
            .is_some_and(|mac| self.form_mac(session).verify_truncated_left(&mac).is_ok())
    }

    fn form_mac(&self, session: &Session) -> Hmac<Sha256> {
        let text = format!("{}{BETWEEN}{:016x}", session.system, session.nonce);
        self.mac(FORM, text.as_bytes())
    }

    fn mac(&self, what: &[u8], text: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(&[u8::try_from(what.len()).unwrap_or(u8::MAX)]);
        mac.update(what);
        mac.update(text);
        mac
    }

    fn header(&self, value: &str, age_secs: u64) -> String {
        let name = self.cookie_name();
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; Max-Age={age_secs}; HttpOnly; SameSite=Strict{secure}")
    }

    /// With TLS browsers hold that the cookie is this host's own.
    const fn cookie_name(&self) -> &'static str {
        if self.secure {
            "__Host-doseline"
        } else {
            "doseline"
        }
    }
}

/// A cookie's value in a `Cookie` header.
pub(super) fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// The clinic that a calling system serves, by its name.
fn clinic_of(system: &CallingSystem) -> Option<ClinicName> {
    let (region, clinic) = system.as_str().split_once("--")?;
    let name = ClinicName {
        region: region.parse().ok()?,
        clinic: clinic.parse().ok()?,
    };
    name.is_served_by(system).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_900_000_000);

    fn sessions() -> Sessions {
        Sessions::new(b"fleet", true)
    }

    fn session(proven_until: Option<Timestamp>) -> Session {
        let system = "seoul--c1".parse().expect("slug");
        sessions()
            .open(system, proven_until, NOW)
            .expect("a clinic")
    }

    fn sent_back(header: &str) -> String {
        header.split(';').next().expect("name and value").to_owned()
    }

    #[test]
    fn a_cookie_is_believed_by_every_gateway_with_the_key_and_by_no_other() {
        let session = session(None);
        let cookie = sent_back(&sessions().set_cookie(&session, NOW));
        let both = format!("lang=ko; {cookie}");
        assert_eq!(sessions().of(&both, NOW), Some(session.clone()));
        assert_eq!(Sessions::new(b"other", true).of(&cookie, NOW), None);
        for at in 0..cookie.len() {
            let mut bytes = cookie.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(forged) = String::from_utf8(bytes) else {
                continue;
            };
            assert_ne!(
                sessions().of(&forged, NOW),
                Some(session.clone()),
                "byte {at}: {forged}"
            );
        }
        assert_eq!(sessions().of("", NOW), None);
        assert_eq!(sessions().of("__Host-doseline=", NOW), None);
    }

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_with_its_credential() {
        let it = session(None);
        let cookie = sent_back(&sessions().set_cookie(&it, NOW));
        let idle = NOW.plus(IDLE_MAX);
        assert_eq!(sessions().of(&cookie, idle), None);
        assert_eq!(sessions().renewed(&it, NOW), None, "not worth it yet");
        let later = NOW.plus(Duration::from_secs(600));
        let renewed = sessions().renewed(&it, later).expect("renewed");
        assert_eq!(renewed.until, later.plus(IDLE_MAX));
        assert_eq!(
            sessions().form_key(&it),
            sessions().form_key(&renewed),
            "open forms stay good"
        );
        let short = session(Some(NOW.plus(Duration::from_secs(900))));
        assert_eq!(short.until, NOW.plus(Duration::from_secs(900)));
        assert_eq!(sessions().renewed(&short, later), None);
    }

    #[test]
    fn a_form_is_good_in_its_own_session_only() {
        let (mine, other) = (session(None), session(None));
        let key = sessions().form_key(&mine);
        assert!(sessions().is_form_of(&mine, &key));
        assert!(!sessions().is_form_of(&other, &key));
        assert!(!sessions().is_form_of(&mine, ""));
        assert!(!sessions().is_form_of(&mine, &key[..key.len() - 4]));
    }

    #[test]
    fn only_clinics_have_sessions() {
        for name in ["dev", "seoul", "app-1"] {
            let system = name.parse().expect("slug");
            assert_eq!(sessions().open(system, None, NOW), None, "{name}");
        }
    }

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_sites() {
        let header = sessions().set_cookie(&session(None), NOW);
        for part in [
            "__Host-doseline=",
            "HttpOnly",
            "SameSite=Strict",
            "Secure",
            "Path=/",
        ] {
            assert!(header.contains(part), "{part} in {header}");
        }
        let plain = Sessions::new(b"fleet", false);
        assert!(!plain.clear_cookie().contains("Secure"));
    }
}
