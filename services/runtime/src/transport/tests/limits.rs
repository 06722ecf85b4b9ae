//! Speaks HTTP/2 by hand, because a well-behaved client cannot show what a hostile one may do.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short frame")
        .to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A POST to `/` by indexed fields, with an authority of one letter.
fn headers(stream: u32) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS,
        stream,
        &[0x83, 0x86, 0x84, 0x41, 1, b'a'],
    )
}

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

async fn open(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address)
        .await
        .expect("the server listens");
    tcp.write_all(PREFACE).await.expect("writable");
    tcp.write_all(&frame(SETTINGS, 0, 0, &[]))
        .await
        .expect("writable");
    tcp
}

/// The next frame; `None` when the connection has ended.
async fn next(tcp: &mut (impl AsyncReadExt + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    within(tcp.read_exact(&mut head)).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("fits")];
    within(tcp.read_exact(&mut payload)).await.ok()?;
    Some(Frame {
        kind: head[3],
        payload,
    })
}

/// The error code of the GOAWAY that the server sends while `attack` goes on.
async fn goaway_after(address: SocketAddr, attack: Vec<u8>) -> u32 {
    let (mut read, mut write) = open(address).await.into_split();
    // The server may close before everything is written; what counts is what it said.
    let writing = async { write.write_all(&attack).await.is_ok() };
    let reading = async {
        while let Some(frame) = next(&mut read).await {
            if frame.kind == GOAWAY {
                let code = frame.payload[4..8].try_into().expect("a GOAWAY has a code");
                return u32::from_be_bytes(code);
            }
        }
        panic!("the connection ended without a GOAWAY");
    };
    tokio::join!(reading, writing).0
}

#[tokio::test]
async fn the_limits_are_told_to_the_peer() {
    let limits = Limits {
        streams_max: 77,
        ..Limits::default()
    };
    let it = start(limits, None, PATIENCE).await;
    let mut tcp = open(it.address).await;
    let first = next(&mut tcp).await.expect("the server's settings");
    assert_eq!(first.kind, SETTINGS);
    let settings: Vec<(u16, u32)> = first
        .payload
        .chunks_exact(6)
        .map(|s| {
            (
                u16::from_be_bytes([s[0], s[1]]),
                u32::from_be_bytes([s[2], s[3], s[4], s[5]]),
            )
        })
        .collect();
    assert!(settings.contains(&(3, 77)), "streams: {settings:?}");
    assert!(
        settings.contains(&(6, 8 * 1024)),
        "header list: {settings:?}"
    );
}

#[tokio::test]
async fn a_rapid_reset_ends_the_connection() {
    let it = start(Limits::default(), None, PATIENCE).await;
    let attack = (0..2_000_u32).flat_map(|n| {
        let stream = 2 * n + 1;
        let mut bytes = headers(stream);
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        bytes
    });
    assert_eq!(
        goaway_after(it.address, attack.collect()).await,
        ENHANCE_YOUR_CALM
    );
}

#[tokio::test]
async fn resets_that_the_peer_provokes_end_the_connection() {
    let it = start(Limits::default(), None, PATIENCE).await;
    // A window beyond 2^31-1 is an error of the stream, which the server has to reset.
    let attack = (0..2_000_u32).flat_map(|n| {
        let stream = 2 * n + 1;
        let mut bytes = headers(stream);
        bytes.extend(frame(
            WINDOW_UPDATE,
            0,
            stream,
            &0x7fff_ffff_u32.to_be_bytes(),
        ));
        bytes
    });
    assert_eq!(
        goaway_after(it.address, attack.collect()).await,
        ENHANCE_YOUR_CALM
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let it = start(limits, None, PATIENCE).await;
    let mut first = open(it.address).await;
    assert_eq!(next(&mut first).await.expect("served").kind, SETTINGS);
    let mut second = TcpStream::connect(it.address)
        .await
        .expect("the kernel accepts");
    let mut byte = [0];
    let read = within(second.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    drop(first);
    within(async {
        // The place is given back when the server has seen the end of the first.
        while next(&mut open_or_closed(it.address).await).await.is_none() {}
    })
    .await;
}

/// Like `open`, but the server may close before anything is written.
async fn open_or_closed(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address)
        .await
        .expect("the kernel accepts");
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    // A failure shows at the read that follows.
    let _ = tcp.write_all(&bytes).await;
    tcp
}
