//! Connections of the embedded broker: requests come in frames, and are answered in their order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Broker, api};

const MAX_CONNECTIONS: usize = 2000;
const MAX_REQUEST_LEN: usize = 100 << 20;
/// How many requests of one connection may be under way.
const PIPELINE: usize = 8;

/// An answer that may still be waited for; none where the client wants none.
pub(super) type Answer = BoxFuture<'static, Option<Bytes>>;

/// Accepts connections until it is stopped.
pub(super) async fn accept(broker: Arc<Broker>, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match (accepted, places.clone().try_acquire_owned()) {
            (Ok((stream, peer)), Ok(place)) => {
                let (broker, stop) = (broker.clone(), stop.clone());
                tasks.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        ended = serve(broker, stream, peer) => {
                            if let Err(error) = ended {
                                tracing::debug!(%peer, %error, "a connection to the embedded broker ended");
                            }
                        }
                        () = stop.cancelled() => {}
                    }
                });
            }
            (Ok((_, peer)), Err(_)) => {
                tracing::warn!(%peer, "the embedded broker has {MAX_CONNECTIONS} connections and takes no more")
            }
            (Err(error), _) => {
                // Out of file descriptors, most likely: others will close theirs.
                tracing::warn!(%error, "the embedded broker cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads requests and writes answers at the same time, so that a producer's next batch is appended
/// while the disk confirms the one before.
async fn serve(broker: Arc<Broker>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (requests, responses) = stream.into_split();
    let (answers, answered) = mpsc::channel(PIPELINE);
    tokio::select! {
        read = read_requests(broker, BufReader::new(requests), peer, answers) => read,
        written = write_answers(responses, answered) => written,
    }
}

async fn read_requests(
    broker: Arc<Broker>,
    mut stream: BufReader<OwnedReadHalf>,
    peer: SocketAddr,
    answers: mpsc::Sender<Answer>,
) -> io::Result<()> {
    loop {
        let len = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
        if len > MAX_REQUEST_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is larger than 100 MB"));
        }
        let mut frame = BytesMut::zeroed(len);
        stream.read_exact(&mut frame).await?;
        let answer = api::begin(&broker, frame.freeze(), peer)
            .await
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if answers.send(answer).await.is_err() {
            return Ok(());
        }
    }
}

async fn write_answers(mut stream: OwnedWriteHalf, mut answers: mpsc::Receiver<Answer>) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        if let Some(frame) = answer.await {
            stream.write_i32(frame.len() as i32).await?;
            stream.write_all(&frame).await?;
        }
    }
    Ok(())
}
