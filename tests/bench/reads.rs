//! Reads as bytes: the load generator decodes nothing, so that what is measured is the server and the transport.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use system_tests::town::{Caller, Development};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// What a read asks and whom.
#[derive(Clone)]
pub(crate) struct Read {
    path: PathAndQuery,
    body: Bytes,
}

impl Read {
    pub(crate) fn new(path: &'static str, request: &impl Message) -> Self {
        Self {
            path: PathAndQuery::from_static(path),
            body: request.encode_to_vec().into(),
        }
    }

    /// Asks once; the answer's bytes.
    pub(crate) async fn ask(&self, caller: &Caller) -> Result<Bytes, Status> {
        let mut grpc: Grpc<InterceptedService<Channel, Development>> = Grpc::new(caller.service());
        grpc.ready()
            .await
            .map_err(|_| Status::unavailable("the connection is not ready"))?;
        let request = Request::new(self.body.clone());
        let answer = grpc.unary(request, self.path.clone(), Raw).await?;
        Ok(answer.into_inner())
    }
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let all = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(all)))
    }
}
