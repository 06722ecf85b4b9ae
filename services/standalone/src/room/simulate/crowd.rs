//! The people: who they are, where they live, and how they wait. All of it follows from their number and the seed.

use domain::RegionId;
use domain::place::DrawTicket;

use crate::population::Population;

/// How many wait in which way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// The share who come at all.
    pub presence: f64,
    /// The share with ten devices.
    pub ten_devices: f64,
    /// The share who reload every second.
    pub reloaders: f64,
    /// The share who leave and come back an hour later.
    pub returners: f64,
    /// Devices of everybody else, on average.
    pub devices: f64,
}

/// A way of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Has a permit before the freeze, asks when told to.
    Early,
    /// Comes after the doors opened.
    Late,
    /// Ten devices that ask when told to, each for itself.
    TenDevices,
    /// Asks every second, whatever it is told.
    Reloader,
    /// Leaves at its first answer after the opening and comes back about an hour later.
    Returner,
}

impl Group {
    pub(super) const ALL: [Self; 5] = [
        Self::Early,
        Self::Late,
        Self::TenDevices,
        Self::Reloader,
        Self::Returner,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Late => "late",
            Self::TenDevices => "ten devices",
            Self::Reloader => "reloads every second",
            Self::Returner => "leaves for an hour",
        }
    }

    pub(super) fn index(self) -> u8 {
        self as u8
    }

    pub(super) fn of(index: u8) -> Self {
        Self::ALL[usize::from(index).min(Self::ALL.len() - 1)]
    }
}

/// One person.
#[derive(Clone, Copy, Debug)]
pub(super) struct Person {
    pub group: Group,
    pub region: u8,
    /// 0 for who never comes.
    pub devices: u32,
}

/// A region and its share of the people.
pub(super) type Shares = Vec<(RegionId, f64)>;

/// The regions of the statistics.
pub(super) fn shares(population: &Population) -> Shares {
    let total = population.people() as f64;
    let of = |name: &str| {
        let districts = population
            .districts
            .iter()
            .filter(|district| district.region == name);
        districts
            .map(crate::population::District::people)
            .sum::<u64>() as f64
            / total
    };
    let regions = population.regions();
    regions
        .iter()
        .filter_map(|name| Some((name.parse().ok()?, of(name))))
        .collect()
}

/// Uniform in 0 to 1, for one person and one purpose.
pub(super) fn uniform(seed: u64, person: u32, purpose: u64) -> f64 {
    let bits = mix(seed ^ mix(u64::from(person) ^ purpose << 40));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The person's ticket: as random as one made with a key, and cheaper.
pub(super) fn ticket(seed: u64, person: u32) -> DrawTicket {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(
        &mix(seed ^ 0x7469_636B_6574)
            .wrapping_add(u64::from(person))
            .to_be_bytes(),
    );
    bytes[8..].copy_from_slice(&own(seed, person).to_be_bytes());
    DrawTicket(bytes)
}

/// The last half of the ticket, which spreads polls.
pub(super) fn own(seed: u64, person: u32) -> u64 {
    mix(seed.wrapping_add(u64::from(person)))
}

/// Who a number is.
pub(super) fn person(
    seed: u64,
    number: u32,
    late: bool,
    habits: &Habits,
    regions: &Shares,
) -> Person {
    let mut left = uniform(seed, number, 1);
    let mut region = 0u8;
    for (at, (_, share)) in regions.iter().enumerate() {
        region = at as u8;
        if left < *share {
            break;
        }
        left -= share;
    }
    let kind = uniform(seed, number, 2);
    let group = if late {
        Group::Late
    } else if kind < habits.ten_devices {
        Group::TenDevices
    } else if kind < habits.ten_devices + habits.reloaders {
        Group::Reloader
    } else if kind < habits.ten_devices + habits.reloaders + habits.returners {
        Group::Returner
    } else {
        Group::Early
    };
    let devices = match group {
        _ if uniform(seed, number, 3) >= habits.presence => 0,
        Group::TenDevices => 10,
        Group::Early | Group::Late | Group::Reloader | Group::Returner => {
            (habits.devices + uniform(seed, number, 4)).floor() as u32
        }
    };
    Person {
        group,
        region,
        devices,
    }
}

/// SplitMix64's finisher.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
