//! Cuts happen where they are told to, and heal without losing a byte.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::await_until::await_until;

const BOUND: Duration = Duration::from_secs(20);
/// Long enough for a byte to cross this machine a thousand times.
const QUIET: Duration = Duration::from_millis(150);

/// Answers each 4-byte request with the same bytes twice, and remembers all requests.
struct Doubler {
    addr: SocketAddr,
    heard: Arc<Mutex<Vec<[u8; 4]>>>,
    _task: AbortOnDropHandle<()>,
}

impl Doubler {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        let task = tokio::task::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                sessions.spawn(async move {
                    let mut request = [0; 4];
                    while stream.read_exact(&mut request).await.is_ok() {
                        notes.lock().expect("no test panics with it").push(request);
                        let reply = [request, request].concat();
                        if stream.write_all(&reply).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self {
            addr,
            heard,
            _task: AbortOnDropHandle::new(task),
        })
    }

    fn heard(&self, request: &[u8; 4]) -> bool {
        self.heard
            .lock()
            .expect("no test panics with it")
            .contains(request)
    }
}

async fn ask(stream: &mut TcpStream, request: &[u8; 4]) -> std::io::Result<[u8; 8]> {
    stream.write_all(request).await?;
    let mut reply = [0; 8];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

async fn pair() -> anyhow::Result<(Doubler, TcpProxy)> {
    let server = Doubler::start().await?;
    let proxy = TcpProxy::start(server.addr).await?;
    Ok((server, proxy))
}

#[tokio::test]
async fn passes_both_ways_and_follows_a_half_close() -> anyhow::Result<()> {
    let (_server, proxy) = pair().await?;
    let mut client = TcpStream::connect(proxy.addr()).await?;
    assert_eq!(&ask(&mut client, b"abcd").await?, b"abcdabcd");
    assert_eq!(proxy.connections(), 1);
    client.write_all(b"last").await?;
    client.shutdown().await?;
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await?;
    assert_eq!(rest, b"lastlast");
    await_until("the relay to end", BOUND, || async {
        proxy.connections() == 0
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn refuse_resets_what_is_there_and_refuses_what_comes() -> anyhow::Result<()> {
    let (_server, proxy) = pair().await?;
    let mut client = TcpStream::connect(proxy.addr()).await?;
    ask(&mut client, b"abcd").await?;
    for _ in 0..5 {
        proxy.set(Traffic::Refuse).await?;
        let error = client.read_u8().await.expect_err("it was reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let error = TcpStream::connect(proxy.addr())
            .await
            .expect_err("the port is closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        proxy.set(Traffic::Pass).await?;
        client = TcpStream::connect(proxy.addr()).await?;
        assert_eq!(&ask(&mut client, b"back").await?, b"backback");
    }
    Ok(())
}

#[tokio::test]
async fn a_blackhole_accepts_holds_and_delivers_when_it_heals() -> anyhow::Result<()> {
    let (server, proxy) = pair().await?;
    let mut old = TcpStream::connect(proxy.addr()).await?;
    ask(&mut old, b"abcd").await?;
    proxy.set(Traffic::Blackhole).await?;
    let mut new = TcpStream::connect(proxy.addr()).await?;
    new.write_all(b"new1").await?;
    assert!(
        tokio::time::timeout(QUIET, ask(&mut old, b"old1"))
            .await
            .is_err()
    );
    assert!(
        !server.heard(b"old1") && !server.heard(b"new1"),
        "a blackhole let something through"
    );
    proxy.set(Traffic::Pass).await?;
    let mut reply = [0; 8];
    old.read_exact(&mut reply).await?;
    assert_eq!(&reply, b"old1old1");
    new.read_exact(&mut reply).await?;
    assert_eq!(&reply, b"new1new1");
    Ok(())
}

#[tokio::test]
async fn one_way_blackholes_hold_one_way() -> anyhow::Result<()> {
    let (server, proxy) = pair().await?;
    let mut client = TcpStream::connect(proxy.addr()).await?;
    ask(&mut client, b"abcd").await?;

    proxy.set(Traffic::BlackholeReplies).await?;
    assert!(
        tokio::time::timeout(QUIET, ask(&mut client, b"one1"))
            .await
            .is_err()
    );
    assert!(server.heard(b"one1"), "requests must go through");
    proxy.set(Traffic::Pass).await?;
    let mut reply = [0; 8];
    client.read_exact(&mut reply).await?;
    assert_eq!(&reply, b"one1one1");

    proxy.set(Traffic::BlackholeRequests).await?;
    assert!(
        tokio::time::timeout(QUIET, ask(&mut client, b"two2"))
            .await
            .is_err()
    );
    assert!(!server.heard(b"two2"), "requests must be held");
    proxy.set(Traffic::Pass).await?;
    client.read_exact(&mut reply).await?;
    assert_eq!(&reply, b"two2two2");
    Ok(())
}

#[tokio::test]
async fn the_next_reply_is_lost_after_the_server_did_its_work_and_only_that_one()
-> anyhow::Result<()> {
    let (server, proxy) = pair().await?;
    let mut client = TcpStream::connect(proxy.addr()).await?;
    ask(&mut client, b"abcd").await?;
    proxy.cut_replies(ReplyCut::next_reply());
    let error = ask(&mut client, b"lost")
        .await
        .expect_err("its reply is lost");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(
        server.heard(b"lost"),
        "the request must have been carried out"
    );
    proxy.await_cuts(1, BOUND).await?;
    let mut again = TcpStream::connect(proxy.addr()).await?;
    assert_eq!(&ask(&mut again, b"lost").await?, b"lostlost");
    assert_eq!(proxy.cuts(), 1);
    Ok(())
}

#[tokio::test]
async fn a_cut_after_n_bytes_lets_exactly_n_arrive() -> anyhow::Result<()> {
    let (_server, proxy) = pair().await?;
    for after in [1, 5, 8, 11] {
        let mut client = TcpStream::connect(proxy.addr()).await?;
        ask(&mut client, b"abcd").await?;
        proxy.cut_replies(ReplyCut {
            request: Vec::new(),
            after,
            times: 1,
        });
        client.write_all(b"efghijkl").await?;
        let mut got = Vec::new();
        let _closed = client.read_to_end(&mut got).await;
        assert_eq!(got, &b"efghefghijklijkl"[..after]);
    }
    assert_eq!(proxy.cuts(), 4);
    Ok(())
}

#[tokio::test]
async fn only_the_reply_to_the_named_request_is_lost() -> anyhow::Result<()> {
    let (server, proxy) = pair().await?;
    let mut bystander = TcpStream::connect(proxy.addr()).await?;
    let mut target = TcpStream::connect(proxy.addr()).await?;
    proxy.cut_replies(ReplyCut::reply_to(b"1234"));
    assert_eq!(&ask(&mut bystander, b"abcd").await?, b"abcdabcd");
    // The mark lies across two requests, and across two reads of the proxy.
    assert_eq!(&ask(&mut target, b"xx12").await?, b"xx12xx12");
    ask(&mut target, b"34yy")
        .await
        .expect_err("its reply is lost");
    assert!(server.heard(b"34yy"));
    assert_eq!(&ask(&mut bystander, b"efgh").await?, b"efghefgh");
    assert_eq!(proxy.cuts(), 1);
    Ok(())
}

#[tokio::test]
async fn a_cut_happens_as_often_as_told_and_can_be_called_off() -> anyhow::Result<()> {
    let (_server, proxy) = pair().await?;
    proxy.cut_replies(ReplyCut {
        times: 3,
        ..ReplyCut::next_reply()
    });
    for _ in 0..3 {
        let mut client = TcpStream::connect(proxy.addr()).await?;
        assert!(ask(&mut client, b"abcd").await.is_err());
    }
    let mut client = TcpStream::connect(proxy.addr()).await?;
    assert!(ask(&mut client, b"abcd").await.is_ok());
    proxy.cut_replies(ReplyCut::next_reply());
    proxy.cut_nothing();
    assert!(ask(&mut client, b"abcd").await.is_ok());
    assert_eq!(proxy.cuts(), 3);
    Ok(())
}

#[tokio::test]
async fn a_dead_server_resets_the_client() -> anyhow::Result<()> {
    let nobody = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()?));
    let proxy = TcpProxy::start(nobody).await?;
    let mut client = TcpStream::connect(proxy.addr()).await?;
    assert!(ask(&mut client, b"abcd").await.is_err());
    Ok(())
}
