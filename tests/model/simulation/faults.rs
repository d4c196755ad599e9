//! The faults and delays of one store request, drawn from the seed.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// How the network and the store handle one request. [`DeliveryPlan`] contains the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Normal,
    /// The request never arrives.
    RequestLost(Loss),
    /// The request is applied, but the response never arrives.
    ResponseLost(Loss),
    /// The request arrives after the caller has timed out.
    Late,
    /// The request is delivered twice, the second time after a delay.
    Duplicated,
    Throttled,
    /// DynamoDB reports a conflict with another transaction.
    Conflict,
    /// DynamoDB returns status 500 and does not apply the request.
    FailedBeforeApply,
    /// DynamoDB applies the request and returns status 500.
    FailedAfterApply,
}

/// How the caller notices a lost message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    ConnectionError,
    Timeout,
}

/// The fault and the delays of one request, drawn when it is sent.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryPlan {
    pub delivery: Delivery,
    pub request_delay: Duration,
    /// The duration of a query, during which other requests can write.
    pub read_duration: Duration,
    pub response_delay: Duration,
    /// The time between the first delivery and its duplicate.
    pub duplicate_delay: Duration,
}

/// How often faults and delays occur in a run.
#[derive(Clone, Copy, Debug)]
pub struct FaultRates {
    pub faults_per_thousand: u32,
    pub slow_percent: u32,
}

impl FaultRates {
    pub const NONE: Self = Self { faults_per_thousand: 0, slow_percent: 0 };

    pub fn draw(random: &mut StdRng) -> Self {
        let faults_per_thousand = [20, 80, 200][random.random_range(0..3)];
        Self { faults_per_thousand, slow_percent: random.random_range(10..50) }
    }
}

impl Delivery {
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "delivered",
            Self::RequestLost(_) => "request lost",
            Self::ResponseLost(_) => "response lost",
            Self::Late => "late",
            Self::Duplicated => "duplicated",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::FailedBeforeApply => "failed before apply",
            Self::FailedAfterApply => "failed after apply",
        }
    }

    /// The name under which applied writes with this fault are counted.
    pub fn name_if_applied(self) -> Option<&'static str> {
        match self {
            Self::Late => Some("late, applied"),
            Self::ResponseLost(_) => Some("response lost, applied"),
            _ => None,
        }
    }
}

impl DeliveryPlan {
    pub fn draw(rates: FaultRates, writes: bool, random: &mut StdRng) -> Self {
        let faulty = random.random_range(0..1000) < rates.faults_per_thousand;
        let delivery = if faulty { draw_fault(writes, random) } else { Delivery::Normal };
        let request_delay = match delivery {
            Delivery::Late => random_ms(random, 700, 9_000),
            _ => draw_delay(rates, random),
        };
        let read_duration = draw_delay(rates, random) / 2;
        let response_delay = draw_delay(rates, random);
        let duplicate_delay = random_ms(random, 20, 5_000);
        Self { delivery, request_delay, read_duration, response_delay, duplicate_delay }
    }
}

impl Loss {
    fn draw(random: &mut StdRng) -> Self {
        if random.random() { Self::ConnectionError } else { Self::Timeout }
    }
}

fn draw_fault(writes: bool, random: &mut StdRng) -> Delivery {
    match random.random_range(0..12) {
        0 => Delivery::RequestLost(Loss::draw(random)),
        1 | 2 => Delivery::ResponseLost(Loss::draw(random)),
        3 | 4 => Delivery::Late,
        5 | 6 => Delivery::Duplicated,
        7 => Delivery::Throttled,
        8 | 9 if writes => Delivery::Conflict,
        10 => Delivery::FailedBeforeApply,
        _ => Delivery::FailedAfterApply,
    }
}

fn draw_delay(rates: FaultRates, random: &mut StdRng) -> Duration {
    let slow = random.random_range(0..100) < rates.slow_percent;
    if slow { random_ms(random, 30, 400) } else { random_ms(random, 1, 20) }
}

/// Draws a random duration in milliseconds. Both bounds are inclusive.
pub fn random_ms(random: &mut StdRng, min: u64, max: u64) -> Duration {
    Duration::from_millis(random.random_range(min..=max))
}
