//! The body of a request, unpacked, as it comes.
//!
//! Guaranteed: it is read no faster than it is asked for, and only a piece of it is kept at a time.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::http::{HeaderMap, StatusCode, header};
use futures::TryStreamExt;
use ruam_door::Problem;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

/// The most bytes of a piece.
const PIECE: usize = 64 << 10;
/// How long a client may send nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// What zstd may refer back to, as a power of two: enough for all levels but those that ask for more (`--ultra`).
const ZSTD_WINDOW: u32 = 23;

/// A body.
pub(super) struct Body {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    piece: Vec<u8>,
    read: u64,
    most: u64,
}

impl Body {
    /// A body that unpacks to at most so many bytes.
    ///
    /// # Errors
    /// Where it is packed in a way that is not known.
    pub(super) fn new(headers: &HeaderMap, body: axum::body::Body, most: u64) -> Result<Self, Problem> {
        let packed = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        let reader: Pin<Box<dyn AsyncRead + Send>> = match encoding.as_deref() {
            None | Some(b"" | b"identity") => Box::pin(packed),
            Some(b"gzip" | b"x-gzip") => {
                let mut unpacked = GzipDecoder::new(packed);
                unpacked.multiple_members(true);
                Box::pin(unpacked)
            }
            Some(b"zstd") => {
                let mut unpacked = ZstdDecoder::with_params(packed, &[DParameter::window_log_max(ZSTD_WINDOW)]);
                unpacked.multiple_members(true);
                Box::pin(unpacked)
            }
            Some(_) => {
                let told = "the body is packed in a way that is not known here. Pack it by gzip or zstd, or not at all";
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, told));
            }
        };
        Ok(Self { reader, piece: vec![0; PIECE], read: 0, most })
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// Where it cannot be read, is too large, or nothing comes.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        let read = tokio::time::timeout(PATIENCE, self.reader.read(&mut self.piece)).await.map_err(|_| {
            let told = format!("nothing came for {} s. Send the rest again, with the same ids", PATIENCE.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, told)
        })?;
        let read = read.map_err(|_| {
            let told = format!("the body is cut off or not packed as it says, behind byte {} unpacked", self.read);
            Problem::new(StatusCode::BAD_REQUEST, told)
        })?;
        self.read += read as u64;
        if self.read > self.most {
            let told = format!("the body has more than {} bytes unpacked. Send it in parts", self.most);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, told));
        }
        Ok((read > 0).then(|| &self.piece[..read]))
    }

    /// A body that is one event.
    ///
    /// # Errors
    /// As [`Self::next`], and where it has more bytes than it may.
    pub(super) async fn whole(mut self, most: usize) -> Result<Vec<u8>, Problem> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > most {
                let told = format!("the event has more than {most} bytes");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, told));
            }
            whole.extend_from_slice(piece);
        }
        Ok(whole)
    }
}
