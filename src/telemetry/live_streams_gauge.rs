//! The gauge of live streams. It is exported only if one process holds all streams.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

/// Not exported while the number is unknown, because 0 would be wrong.
#[derive(Debug, Default)]
pub struct LiveStreamsGauge(Mutex<Option<u64>>);

impl LiveStreamsGauge {
    pub fn set(&self, live: Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

impl Collector for LiveStreamsGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(live) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let gauge = ConstGauge::new(live);
        gauge.encode(encoder.encode_descriptor("live_streams", "Live streams", None, gauge.metric_type())?)
    }
}
