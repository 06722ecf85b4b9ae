//! What a process of ours measures, read as Prometheus would.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The metrics page of the process that shows it at `addr`, headers included.
pub async fn metrics(addr: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(addr).await?;
    let ask = b"GET /metrics HTTP/1.1\r\nHost: doseline\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The sum of a counter's series that carry `label`, such as `refusal="NOT_ADMITTED"`, on a metrics page.
#[must_use]
pub fn total(page: &str, counter: &str, label: &str) -> u64 {
    let series = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(counter)?.split_once("} ")?;
        let carries = labels.strip_prefix('{')?.split(',').any(|one| one == label);
        carries.then(|| value.parse::<u64>().ok()).flatten()
    });
    series.sum()
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn a_counters_series_are_told_from_others_and_added_up() {
        let page = "# TYPE a counter\na_total{region=\"x\",why=\"P\"} 3\na_total{region=\"y\",why=\"P\"} 4\n\
                    a_total{region=\"y\",why=\"PQ\"} 50\nab_total{why=\"P\"} 600\na_total 7000\n";
        assert_eq!(total(page, "a_total", "why=\"P\""), 7);
        assert_eq!(total(page, "a_total", "why=\"Z\""), 0);
    }
}
