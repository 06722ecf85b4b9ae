//! One connection through the proxy.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::rules::{Direction, Progress, Rules, Traffic, reached};

/// One TLS record; larger chunks would make cuts no more exact.
const CHUNK: usize = 16 * 1024;

/// How a connection ends, at both sides.
enum End {
    Closed,
    Reset,
}

/// Relays until either side ends, a cut is due, or connections are refused.
pub(super) async fn run(mut client: TcpStream, upstream: SocketAddr, rules: watch::Sender<Rules>) {
    let mut server = None;
    let end = tokio::select! {
        biased;
        () = reached(&rules, |rules| rules.traffic == Traffic::Refuse) => End::Reset,
        end = converse(&mut client, &mut server, upstream, &rules) => end,
    };
    match end {
        End::Closed => {}
        End::Reset => {
            for stream in std::iter::once(&client).chain(&server) {
                if let Err(error) = stream.set_zero_linger() {
                    tracing::debug!(%error, "the connection ends without a reset");
                }
            }
        }
    }
}

async fn converse(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    upstream: SocketAddr,
    rules: &watch::Sender<Rules>,
) -> End {
    // A handshake is traffic too.
    reached(rules, |rules| rules.traffic.passes(Direction::Requests)).await;
    let Ok(stream) = TcpStream::connect(upstream).await else {
        reached(rules, |rules| rules.traffic.passes(Direction::Replies)).await;
        return End::Reset;
    };
    if client
        .set_nodelay(true)
        .and_then(|()| stream.set_nodelay(true))
        .is_err()
    {
        return End::Reset;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.insert(stream).split();
    let progress = Mutex::new(Progress::default());
    let requests = pump(
        Direction::Requests,
        from_client,
        to_server,
        rules,
        &progress,
    );
    let replies = pump(Direction::Replies, from_server, to_client, rules, &progress);
    match tokio::try_join!(requests, replies) {
        Ok(((), ())) => End::Closed,
        Err(end) => end,
    }
}

/// Moves bytes one way; `Ok` is a half that its sender has closed.
async fn pump(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    rules: &watch::Sender<Rules>,
    progress: &Mutex<Progress>,
) -> Result<(), End> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await;
        // What has been read is held, not lost, and so is the news of an end: it goes on when traffic passes again.
        reached(rules, |rules| rules.traffic.passes(direction)).await;
        let read = read.map_err(|_| End::Reset)?;
        if read == 0 {
            return to.shutdown().await.map_err(|_| End::Reset);
        }
        let bytes = &chunk[..read];
        if let Some(allowed) = allowance(direction, bytes, rules, progress) {
            to.write_all(&bytes[..allowed])
                .await
                .map_err(|_| End::Reset)?;
            // A reset could overtake the bytes that are still to arrive.
            return Err(if allowed == 0 {
                End::Reset
            } else {
                End::Closed
            });
        }
        to.write_all(bytes).await.map_err(|_| End::Reset)?;
    }
}

/// How many of these bytes go on before the connection is cut; `None` is all of them, and no cut.
fn allowance(
    direction: Direction,
    bytes: &[u8],
    rules: &watch::Sender<Rules>,
    progress: &Mutex<Progress>,
) -> Option<usize> {
    let mut allowed = None;
    rules.send_if_modified(|rules| {
        let mut progress = progress.lock().expect("nothing here panics with it");
        match direction {
            Direction::Requests => progress.request(rules, bytes),
            Direction::Replies => allowed = progress.reply(rules, bytes.len()),
        }
        allowed.is_some()
    });
    allowed
}
