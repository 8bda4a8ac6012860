//! An answer on its way out: batches, into the bytes of a format.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use ruam_door::Problem;

use crate::error::QueryError;
use crate::format::{Format, Sink, sink};

/// The formats, each with the type of media that stands for it; the first where nothing else is asked for.
const FORMATS: [(Format, &str); 5] = [
    (Format::Json, "application/json"),
    (Format::Ndjson, "application/x-ndjson"),
    (Format::Csv, "text/csv"),
    (Format::Arrow, "application/vnd.apache.arrow.stream"),
    (Format::Parquet, "application/vnd.apache.parquet"),
];

/// The format that is asked for: by its name in the body or in `?format=`, or by the header `accept`.
///
/// # Errors
/// Where there is no such format.
pub(super) fn wanted(named: Option<&str>, headers: &HeaderMap, uri: &Uri) -> Result<Format, Problem> {
    let in_uri = || uri.query()?.split('&').find_map(|part| part.strip_prefix("format="));
    if let Some(name) = named.or_else(in_uri) {
        let format = name.parse().ok().filter(|format| FORMATS.iter().any(|(known, _)| known == format));
        return format.ok_or_else(|| {
            let told = "there is no such format. Ask for json, ndjson, csv, arrow or parquet";
            Problem::new(StatusCode::BAD_REQUEST, told)
        });
    }
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut accepted =
        accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or("").trim());
    let mut any = true;
    let found = accepted.find_map(|kind| {
        any = false;
        let is_meant = |media: &str| match kind.split_once('/') {
            Some(("*", "*")) => true,
            Some((group, "*")) => media.split_once('/').is_some_and(|(own, _)| own.eq_ignore_ascii_case(group)),
            _ => kind.eq_ignore_ascii_case(media),
        };
        FORMATS.iter().find(|(_, media)| is_meant(media))
    });
    match found {
        Some((format, _)) => Ok(*format),
        None if any => Ok(FORMATS[0].0),
        None => {
            let known: Vec<_> = FORMATS.iter().map(|(_, media)| *media).collect();
            Err(Problem::new(StatusCode::NOT_ACCEPTABLE, format!("accept one of {}", known.join(", "))))
        }
    }
}

/// An answer. What goes wrong before its first rows are there is a problem; after that, it is cut off, and no
/// client takes it for a whole one.
///
/// # Errors
/// Where it cannot begin.
pub(super) async fn answer(mut results: SendableRecordBatchStream, format: Format) -> Result<Response, Problem> {
    let written = Written::default();
    let sink = sink(format, results.schema(), None, written.clone())?;
    let first = results.next().await.transpose().map_err(QueryError::from)?;
    let results = futures::stream::iter(first.map(Ok)).chain(results).boxed();
    let answering = Answering { results, sink: Some(sink), written };
    let media = FORMATS.iter().find(|(known, _)| *known == format).map_or("", |(_, media)| *media);
    let bytes = futures::stream::try_unfold(answering, |mut answering| async move {
        let bytes = answering.next().await?;
        Ok::<_, QueryError>(bytes.map(|bytes| (bytes, answering)))
    });
    let bytes = bytes.inspect_err(|error| tracing::debug!(fault = ?error.fault(), "an answer was cut off"));
    Ok(([(header::CONTENT_TYPE, media)], Body::from_stream(bytes)).into_response())
}

struct Answering {
    results: BoxStream<'static, Result<RecordBatch, DataFusionError>>,
    /// None from when everything has been written.
    sink: Option<Box<dyn Sink + Send>>,
    written: Written,
}

impl Answering {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, QueryError> {
        while let Some(mut sink) = self.sink.take() {
            match self.results.next().await {
                Some(batch) => {
                    sink.write(&batch?)?;
                    self.sink = Some(sink);
                }
                None => sink.finish()?,
            }
            let bytes = self.written.take();
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// What a sink has written and nobody has taken yet.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_asked_for_by_name_or_by_header() {
        let by = |named: Option<&str>, accept: Option<&str>, uri: &'static str| {
            let accept = accept.map(|accept| (header::ACCEPT, accept.parse().unwrap()));
            wanted(named, &accept.into_iter().collect(), &Uri::from_static(uri)).ok()
        };
        assert_eq!(by(None, None, "/"), Some(Format::Json));
        assert_eq!(by(Some("csv"), Some("application/json"), "/"), Some(Format::Csv));
        assert_eq!(by(None, Some("application/json"), "/?format=arrow"), Some(Format::Arrow));
        assert_eq!(by(None, Some("text/html, text/*;q=0.8"), "/"), Some(Format::Csv));
        assert_eq!(by(None, Some("text/html, */*"), "/"), Some(Format::Json));
        assert_eq!(by(None, Some("application/vnd.apache.parquet"), "/"), Some(Format::Parquet));
        assert_eq!((by(None, Some("text/html"), "/"), by(Some("table"), None, "/")), (None, None));
    }
}
