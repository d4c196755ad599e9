//! What becomes of one request on its way, drawn by seed.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// The fate of one request; the delays come on top of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    /// Never arrives. `true`: the connection breaks, else nothing is heard.
    Lost(bool),
    /// Applied, and the answer never comes back.
    AnswerLost(bool),
    /// Arrives after the caller has given up.
    Late,
    /// Delivered, and delivered a second time later.
    Twice,
    Throttled,
    /// DynamoDB's conflict with a transaction that is being applied.
    Conflict,
    FailedUnapplied,
    FailedApplied,
}

/// All that is decided of one request when it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fate: Fate,
    pub there: Duration,
    /// How long a query takes, while others write.
    pub reading: Duration,
    pub back: Duration,
    /// When a duplicate arrives, after the first delivery.
    pub again: Duration,
}

/// How much goes wrong in a run.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// In a thousand requests.
    pub faults: u32,
    /// In a hundred requests.
    pub slow: u32,
}

impl Weather {
    pub fn of(random: &mut StdRng) -> Self {
        let faults = [20, 80, 200][random.random_range(0..3)];
        Self { faults, slow: random.random_range(10..50) }
    }

    pub const CALM: Self = Self { faults: 0, slow: 0 };
}

impl Fate {
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Lost(_) => "lost",
            Self::AnswerLost(_) => "answer lost",
            Self::Late => "late",
            Self::Twice => "twice",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::FailedUnapplied => "failed, not applied",
            Self::FailedApplied => "failed, applied",
        }
    }
}

impl Fate {
    /// What to count when a write that this happens to is applied.
    pub fn bites(self) -> Option<&'static str> {
        match self {
            Self::Late => Some("late, applied"),
            Self::AnswerLost(_) => Some("answer lost, applied"),
            _ => None,
        }
    }
}

impl Plan {
    pub fn of(weather: Weather, writes: bool, random: &mut StdRng) -> Self {
        let fate =
            if random.random_range(0..1000) >= weather.faults { Fate::Delivered } else { fault(writes, random) };
        let there = match fate {
            Fate::Late => ms(random, 700, 9_000),
            _ => delay(weather, random),
        };
        let reading = delay(weather, random) / 2;
        Self { fate, there, reading, back: delay(weather, random), again: ms(random, 20, 5_000) }
    }
}

fn fault(writes: bool, random: &mut StdRng) -> Fate {
    match random.random_range(0..12) {
        0 => Fate::Lost(random.random()),
        1 | 2 => Fate::AnswerLost(random.random()),
        3 | 4 => Fate::Late,
        5 | 6 => Fate::Twice,
        7 => Fate::Throttled,
        8 | 9 if writes => Fate::Conflict,
        10 => Fate::FailedUnapplied,
        _ => Fate::FailedApplied,
    }
}

fn delay(weather: Weather, random: &mut StdRng) -> Duration {
    let slow = random.random_range(0..100) < weather.slow;
    if slow { ms(random, 30, 400) } else { ms(random, 1, 20) }
}

pub fn ms(random: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(random.random_range(least..=most))
}
