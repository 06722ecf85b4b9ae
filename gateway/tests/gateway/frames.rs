//! HTTP/2 as no client library would send it: calls whose messages come after they were refused.

use std::time::Duration;

use gateway::Shedding;
use gateway::shedding::Limit;
use proto::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::setup::{Setup, await_until, wide};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// More than a server forgives a peer's own errors.
const CALLS: u32 = 600;

/// A frame as in RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that no table remembers, as in RFC 7541, section 6.2.2: by the index of its name, or by its name.
fn field(name: Result<u8, &str>, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len())
            .ok()
            .filter(|length| *length < 127)
            .expect("short");
        [&[length], text.as_bytes()].concat()
    };
    let name = match name {
        Ok(index) => vec![index],
        Err(name) => [vec![0], text(name)].concat(),
    };
    [name, text(value)].concat()
}

/// The headers of a call of Book; POST and http are entries 3 and 6 of the static table, authority 1, path 4.
fn book() -> Vec<u8> {
    [
        vec![0x83, 0x86],
        field(Ok(1), "gateway"),
        field(Ok(4), Method::Book.path()),
        field(Err("content-type"), "application/grpc"),
        field(Err("te"), "trailers"),
    ]
    .concat()
}

#[tokio::test]
async fn hundreds_who_are_refused_before_their_message_came_keep_their_connection() {
    let closed = Limit::new(0, Duration::from_secs(10));
    let it = Setup::with(Shedding {
        commands: closed,
        ..wide()
    })
    .await;
    let mut stream = TcpStream::connect(it.addr).await.expect("listens");
    let streams = (0..CALLS).map(|number| 2 * number + 1);
    let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for id in streams.clone() {
        sent.extend(frame(HEADERS, END_HEADERS, id, &book()));
    }
    stream.write_all(&sent).await.expect("sent");
    let shed = format!("doseline_gateway_shed_total{{class=\"commands\"}} {CALLS}");
    await_until("all are refused", async || {
        it.host.registry.encode().contains(&shed)
    })
    .await;
    let mut messages = Vec::new();
    for id in streams {
        messages.extend(frame(DATA, END_STREAM, id, &[0; 5]));
    }
    messages.extend(frame(PING, 0, 0, b"are you?"));
    stream.write_all(&messages).await.expect("sent");
    let (mut answered, mut ponged) = (0, false);
    while answered < CALLS || !ponged {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("still connected");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("short")];
        stream
            .read_exact(&mut payload)
            .await
            .expect("a whole frame");
        assert_ne!(head[3], GOAWAY, "sent away after {answered} answers");
        answered += u32::from(head[3] == HEADERS);
        ponged |= (head[3], head[4] & ACK) == (PING, ACK);
    }
}
