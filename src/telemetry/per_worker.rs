//! Counters and histograms with a separate part for each worker thread. A scrape adds the parts.
//!
//! prometheus-client's own types keep one value that all threads write, and its histogram and families lock it. A heartbeat would
//! write about ten such values. Each time, the core must first fetch the cache line from the core that wrote it last.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric, counter};

pub type Counter = counter::Counter<u64, PerWorker>;

/// The number of parts. If there are more threads, some share a part, which is slower but correct.
const PARTS: usize = 16;

/// The maximum number of buckets of a histogram, the one for larger values included.
const MAX_BUCKETS: usize = 16;

/// The sum of one number per worker.
#[derive(Debug, Default)]
pub struct PerWorker([CachePadded<AtomicU64>; PARTS]);

/// Counts values in buckets. Clones share their values.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// In ascending order. Larger values go to one more bucket.
    upper_bounds: &'static [f64],
    parts: Arc<[CachePadded<HistogramPart>; PARTS]>,
}

#[derive(Debug, Default)]
struct HistogramPart {
    counts: [AtomicU64; MAX_BUCKETS],
    /// The bits of an `f64`.
    sum: AtomicU64,
}

/// The part of the current thread.
fn part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PART: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    PART.with(|part| *part)
}

impl counter::Atomic<u64> for PerWorker {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    /// Returns the previous value of this thread's part. The service does not use it.
    fn inc_by(&self, increment: u64) -> u64 {
        self.0[part()].fetch_add(increment, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|part| part.load(Ordering::Relaxed)).sum()
    }
}

impl Histogram {
    /// There must be at most 15 `upper_bounds`, in ascending order.
    pub(crate) fn new(upper_bounds: &'static [f64]) -> Self {
        debug_assert!(upper_bounds.len() < MAX_BUCKETS && upper_bounds.is_sorted());
        Self { upper_bounds, parts: Arc::default() }
    }

    pub(crate) fn observe(&self, value: f64) {
        let part = &self.parts[part()];
        let bucket = self.upper_bounds.iter().position(|bound| value <= *bound);
        part.counts[bucket.unwrap_or(self.upper_bounds.len())].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // Never fails, because `add` always returns a value.
        _ = part.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn count(&self, bucket: usize) -> u64 {
        self.parts.iter().map(|part| part.counts[bucket].load(Ordering::Relaxed)).sum()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.upper_bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.enumerate().map(|(n, bound)| (bound, self.count(n))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.parts.iter().map(|part| f64::from_bits(part.sum.load(Ordering::Relaxed))).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    /// Encodes a metric that several threads have changed.
    fn encoded(metric: impl prometheus_client::registry::Metric + Clone, change: impl Fn() + Sync) -> String {
        let mut registry = Registry::default();
        registry.register("name", "Help", metric);
        std::thread::scope(|scope| {
            for _ in 0..2 * PARTS {
                scope.spawn(&change);
            }
        });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_counter_is_the_sum_of_all_threads() {
        let counter = Counter::default();
        let text = encoded(counter.clone(), || _ = counter.inc_by(3));
        assert!(text.contains("name_total 96\n"), "{text}");
    }

    #[test]
    fn a_histogram_is_the_sum_of_all_threads() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        let text =
            encoded(histogram.clone(), || [0.25, 0.5, 0.75, 4.0].iter().for_each(|value| histogram.observe(*value)));
        for line in
            ["bucket{le=\"0.5\"} 64", "bucket{le=\"1.0\"} 96", "bucket{le=\"+Inf\"} 128", "count 128", "sum 176.0"]
        {
            assert!(text.contains(&format!("name_{line}\n")), "{line}: {text}");
        }
    }
}
