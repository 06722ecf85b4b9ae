//! What the operating system knows about this process, by the names Prometheus clients agreed on.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The kernel's unit of processor time towards programs; 100 on every Linux since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` when the metrics are asked for.
#[derive(Debug)]
pub(super) struct ProcessCollector;

/// What `/proc/self` says now.
#[derive(Debug, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_fds: u64,
    max_fds: u64,
    start_seconds: f64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut to: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        // Where there is no /proc, the metrics are absent rather than wrong.
        let Some(now) = read() else { return Ok(()) };
        // The encoder adds `_total` to a counter's name.
        let cpu = ConstCounter::new(now.cpu_seconds);
        let help = "Processor time used by this process in seconds";
        cpu.encode(to.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let start = ConstGauge::new(now.start_seconds);
        let help = "When this process started, in seconds since 1970";
        let gauge = MetricType::Gauge;
        start.encode(to.encode_descriptor("process_start_time_seconds", help, None, gauge)?)?;
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Memory in use",
                now.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Memory addressed",
                now.virtual_bytes,
            ),
            (
                "process_threads",
                "Threads of the operating system",
                now.threads,
            ),
            ("process_open_fds", "Open file descriptors", now.open_fds),
            (
                "process_max_fds",
                "File descriptors that may be open",
                now.max_fds,
            ),
        ] {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(to.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

fn read() -> Option<Figures> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key: &str| Some(number_after(&status, key)? * 1_024);
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name and may hold blanks; count from behind its bracket.
    let behind_name: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| behind_name.get(at)?.parse::<f64>().ok();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let boot = number_after(
        &fs::read_to_string("/proc/stat").unwrap_or_default(),
        "btime",
    );
    Some(Figures {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        resident_bytes: kib("VmRSS:")?,
        virtual_bytes: kib("VmSize:")?,
        threads: number_after(&status, "Threads:")?,
        open_fds: u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?,
        max_fds: number_after(&limits, "Max open files").unwrap_or(0),
        start_seconds: f64::from(u32::try_from(boot.unwrap_or(0)).unwrap_or(0))
            + ticks(19)? / TICKS_PER_SECOND,
    })
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_plausible_figures() {
        let now = read().expect("Linux has /proc");
        assert!(
            now.resident_bytes > 100_000 && now.virtual_bytes >= now.resident_bytes,
            "{now:?}"
        );
        assert!(
            now.open_fds >= 3 && now.max_fds >= now.open_fds && now.threads >= 1,
            "{now:?}"
        );
        assert!(now.start_seconds > 1_700_000_000.0, "{now:?}");
    }

    #[test]
    fn they_are_on_the_page() {
        let page = crate::metrics::Registry::new().encode();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            assert!(page.contains(&format!("\n{name}")), "{name} in {page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }
}
