//! Standard process metrics, such as CPU time and memory. Each scrape reads them from the operating system.

use std::fmt;

use metrics_process::collector::{Metrics as Process, collect};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Process {
            cpu_seconds_total, resident_memory_bytes, open_fds, max_fds, start_time_seconds, threads, ..
        } = collect();
        if let Some(seconds) = cpu_seconds_total {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory", resident_memory_bytes),
            ("process_open_fds", "Open file descriptors", open_fds),
            // `collect` returns 0 if the number is unlimited.
            ("process_max_fds", "Highest number of open file descriptors", max_fds.filter(|max| *max > 0)),
            ("process_start_time_seconds", "Start of the process as Unix time", start_time_seconds),
            ("process_threads", "Threads", threads),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
