//! An object store that speaks S3 over real HTTP and knows conditional puts: s3s-fs, on a folder.

use std::net::SocketAddr;
use std::sync::mpsc::channel;

use anyhow::{Context, Result, anyhow};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::sync::{Mutex, oneshot};

/// The bucket that there is.
const BUCKET: &str = "lake";
/// Who may use it.
const KEY: &str = "ruam-test";
const SECRET: &str = "a-secret-that-must-not-print";

/// The running server. It stops when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    _dir: TempDir,
}

impl S3Server {
    /// Starts a server with one empty bucket.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join(BUCKET))?;
        let files = FileSystem::new(dir.path()).map_err(|error| anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(OneAtATime { files, putting: Mutex::new(()) });
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let (address_to, address_from) = channel();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
                let _ = address_to.send(listener.local_addr()?);
                let server = Builder::new(TokioExecutor::new());
                loop {
                    let (socket, _) = tokio::select! {
                        accepted = listener.accept() => accepted?,
                        _ = &mut stopped => return Ok::<_, std::io::Error>(()),
                    };
                    let connection = server.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
                    tokio::spawn(connection);
                }
            })
        });
        let address = address_from.recv().context("the S3 server did not start")?;
        Ok(Self { address, _stop: stop, _dir: dir })
    }

    /// The settings of a lake in the bucket.
    pub fn settings(&self, folder: &str) -> String {
        format!(
            "[lake]\nurl = \"s3://{BUCKET}/{folder}\"\n[lake.options]\naws_endpoint = \"http://{}\"\n\
             aws_region = \"ap-southeast-7\"\naws_allow_http = \"true\"\naws_access_key_id = \"{KEY}\"\n\
             aws_secret_access_key = \"{SECRET}\"\n",
            self.address
        )
    }
}

/// s3s-fs, which looks whether an object is there and then writes it: two conditional puts at once
/// could both succeed, which a real store does not allow. Here one waits for the other.
struct OneAtATime {
    files: FileSystem,
    putting: Mutex<()>,
}

/// Operations that are the same as the store's own.
macro_rules! pass_on {
    ($($operation:ident: $input:ident -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for OneAtATime {
            async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                let _alone = self.putting.lock().await;
                self.files.put_object(request).await
            }

            $(async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$operation(request).await
            })*
        }
    };
}

pass_on! {
    get_object: GetObjectInput -> GetObjectOutput;
    head_object: HeadObjectInput -> HeadObjectOutput;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output;
    copy_object: CopyObjectInput -> CopyObjectOutput;
    delete_object: DeleteObjectInput -> DeleteObjectOutput;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput;
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput;
    upload_part: UploadPartInput -> UploadPartOutput;
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput;
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput;
}
