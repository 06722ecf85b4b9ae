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
