//! What the proxy does with traffic, and the arithmetic of a cut in the replies.

use tokio::sync::watch;

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Everything goes through.
    #[default]
    Pass,
    /// New connections are refused and present ones reset: the process is gone.
    Refuse,
    /// Connections are accepted and nothing goes through either way: the network is gone.
    Blackhole,
    /// What clients send is held; what servers send goes through.
    BlackholeRequests,
    /// What clients send goes through; what servers send is held.
    BlackholeReplies,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Requests,
    Replies,
}

impl Traffic {
    pub(super) fn passes(self, direction: Direction) -> bool {
        match self {
            Self::Pass => true,
            Self::Refuse | Self::Blackhole => false,
            Self::BlackholeRequests => direction == Direction::Replies,
            Self::BlackholeReplies => direction == Direction::Requests,
        }
    }
}

/// Ends connections inside a reply. The server has then done what it was asked, and the client cannot know.
///
/// With `after: 0` a connection is reset the moment its first reply byte reaches the proxy, so a reply that follows
/// a commit is lost after that commit, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyCut {
    /// Counting begins with the request that carries these bytes; empty means at once.
    pub request: Vec<u8>,
    /// So many reply bytes of a connection still arrive; then it ends.
    pub after: usize,
    /// So many connections are cut; later ones pass.
    pub times: u32,
}

impl ReplyCut {
    /// The next reply of any connection, before its first byte.
    #[must_use]
    pub fn next_reply() -> Self {
        Self {
            request: Vec::new(),
            after: 0,
            times: 1,
        }
    }

    /// The reply to the request that carries `bytes`, for instance a request id, before its first byte.
    #[must_use]
    pub fn reply_to(bytes: &[u8]) -> Self {
        Self {
            request: bytes.to_vec(),
            after: 0,
            times: 1,
        }
    }
}

/// The state all connections share.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) traffic: Traffic,
    pub(super) cut: Option<ReplyCut>,
    pub(super) cuts: u64,
    /// Counts the armings, so that connections start afresh with each.
    arming: u64,
}

impl Rules {
    pub(super) fn arm(&mut self, cut: ReplyCut) {
        self.arming += 1;
        self.cut = (cut.times > 0).then_some(cut);
    }
}

/// How far one connection is towards its cut.
#[derive(Debug, Default)]
pub(super) struct Progress {
    arming: u64,
    requested: bool,
    replied: usize,
    /// The end of the last request chunk: what is looked for may lie across two.
    tail: Vec<u8>,
}

impl Progress {
    /// To be told before a request chunk goes on, so that its reply cannot come first.
    pub(super) fn request(&mut self, rules: &Rules, chunk: &[u8]) {
        self.renew(rules);
        let Some(cut) = rules.cut.as_ref().filter(|cut| !cut.request.is_empty()) else {
            return;
        };
        if self.requested {
            return;
        }
        self.tail.extend_from_slice(chunk);
        self.requested = self
            .tail
            .windows(cut.request.len())
            .any(|window| window == cut.request);
        let keep = self.tail.len().min(cut.request.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
    }

    /// How many bytes of a reply chunk may go on before the connection ends; `None` is all, and no end.
    pub(super) fn reply(&mut self, rules: &mut Rules, chunk: usize) -> Option<usize> {
        self.renew(rules);
        let cut = rules.cut.as_mut()?;
        if !cut.request.is_empty() && !self.requested {
            return None;
        }
        let allowed = cut.after - self.replied;
        if chunk < allowed {
            self.replied += chunk;
            return None;
        }
        cut.times -= 1;
        if cut.times == 0 {
            rules.cut = None;
        }
        rules.cuts += 1;
        Some(allowed)
    }

    fn renew(&mut self, rules: &Rules) {
        if self.arming != rules.arming {
            *self = Self {
                arming: rules.arming,
                ..Self::default()
            };
        }
    }
}

/// Waits until the rules are such. Answers nothing, because a look into a watch must not be kept while waiting.
pub(super) async fn reached(rules: &watch::Sender<Rules>, such: impl FnMut(&Rules) -> bool + Send) {
    let seen = rules.subscribe().wait_for(such).await.map(drop);
    seen.expect("the sender is borrowed here, so it exists");
}
