//! Speaks to an inventory as a gateway does and says whatever it likes: the words of a gateway that lies.

use futures::StreamExt as _;
use proto::inventory::inventory_service_client::InventoryServiceClient;
use proto::inventory::{Answer, Command, ExecuteRequest, answer, command};
use tonic::{Request, Status};

use crate::world::{CALLER, World, channel, said_by};

/// The metadata that carries the secret of Doseline's parts.
const INTERNAL: &str = "x-doseline-internal";

/// A request with the secret of Doseline's parts, or with what somebody takes for it.
pub(crate) fn shown<T>(key: Option<&str>, message: T) -> Request<T> {
    let mut request = said_by(CALLER, message);
    if let Some(key) = key.and_then(|key| key.parse().ok()) {
        request.metadata_mut().insert(INTERNAL, key);
    }
    request
}

impl World {
    /// The secret that gateways show.
    pub(crate) fn internal(&self) -> anyhow::Result<String> {
        let secret = std::fs::read_to_string(self.folder().join("internal.key"))?;
        Ok(secret.trim().to_owned())
    }
}

/// A command about Seoul, of a caller who waits for five seconds.
pub(crate) fn command(caller: &str, action: command::Action) -> Command {
    Command {
        call_id: 7,
        caller: caller.to_owned(),
        region: "seoul".to_owned(),
        shard: 0,
        timeout_ms: 5_000,
        traceparent: String::new(),
        oversees: false,
        action: Some(action),
    }
}

/// Sends commands in one message; as many answers, in the order they came.
pub(crate) async fn ask(
    addr: &str,
    request: impl FnOnce(ExecuteRequest) -> Request<ExecuteRequest>,
    commands: Vec<Command>,
) -> Result<Vec<Answer>, Status> {
    let count = commands.len();
    let (head, extensions, message) = request(ExecuteRequest { commands }).into_parts();
    // The stream stays open until the answers are there.
    let messages = futures::stream::iter([message]).chain(futures::stream::pending());
    let request = Request::from_parts(head, extensions, messages);
    let channel = channel(addr).map_err(|error| Status::internal(error.to_string()))?;
    let mut stream = InventoryServiceClient::new(channel)
        .execute(request)
        .await?
        .into_inner();
    let mut answers = Vec::with_capacity(count);
    while answers.len() < count {
        let message = stream.message().await?;
        let message = message.ok_or_else(|| Status::internal("the stream ended too soon"))?;
        answers.extend(message.answers);
    }
    Ok(answers)
}

/// The code of the refusal in an answer that must be one.
pub(crate) fn reason(what: &str, answer: Answer) -> anyhow::Result<String> {
    match answer.outcome {
        Some(answer::Outcome::Refused(refused)) => Ok(refused.reason),
        other => anyhow::bail!("{what} was not refused: {other:?}"),
    }
}
