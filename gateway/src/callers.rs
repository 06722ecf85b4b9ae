//! Which calling system speaks, and what its role may do.
//!
//! Invariant: every call of the public API passes [`CallersLayer`] before anything else looks at it, and a method
//! that has no row in [`roles`] does not compile.

mod identify;
mod jwt;
mod layer;
mod roles;

use domain::name::ClinicName;
use domain::{CallingSystem, Refusal};

pub use identify::Callers;
pub(crate) use identify::Shows;
pub use jwt::{JwtCallers, JwtFault};
pub use layer::{CallersLayer, CallersService};
pub use roles::may;

/// The header in which a calling system names itself where `--dev` believes it, and in which a gateway tells
/// identity who called.
pub const CALLER_HEADER: &str = "x-doseline-caller";
/// The header in which a calling system says its role where `--dev` believes it.
pub const ROLE_HEADER: &str = "x-doseline-role";

/// What a calling system is. Ours (gateways, inventories, identities) are no callers of the public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The back end of a mobile app.
    Mobile,
    /// A clinic's terminal.
    Clinic,
    /// An operator of the campaign.
    Operator,
    /// Somebody who checks and changes nothing.
    Auditor,
}

/// A calling system and its role; in the extensions of every request that reaches a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Which one it is.
    pub system: CallingSystem,
    /// What it may do.
    pub role: Role,
}

/// In the extensions of a request that was made inside this process for somebody who proved who they are; nothing that
/// comes over the network has extensions of ours.
#[derive(Clone, Debug)]
pub(crate) struct Vouched(pub(crate) Caller);

impl Caller {
    /// Whether this caller may see the clinic's own data: a clinic its own only, who oversees clinics all of them.
    pub(crate) fn may_see(&self, clinic: &ClinicName) -> Result<(), Refusal> {
        if self.role == Role::Clinic && !clinic.is_served_by(&self.system) {
            return Err(Refusal::ClinicForeign);
        }
        Ok(())
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Mobile, Self::Clinic, Self::Operator, Self::Auditor];

    /// As written in certificates, JWTs and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Clinic => "clinic",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }

    /// The role of a name; `None` for anything else.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}
