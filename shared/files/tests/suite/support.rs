//! A store of either kind, empty, and a look at what is left in it.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use aig_domain::{Clock as _, Secret, clock::SystemClock, id};
use aig_files::{Directory, Files, Incoming, S3Config, S3Files};
use bytes::Bytes;
use futures_util::{FutureExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{HttpConnector as _, HttpRequestBody, ReqwestConnector};
use object_store::multipart::MultipartStore as _;
use object_store::{ClientOptions, ObjectStore as _, ObjectStoreExt as _, path};
use url::Url;

pub const MIB: usize = 1024 * 1024;

/// A store, empty at first.
pub struct TestFiles {
    pub files: Box<dyn Files>,
    behind: Behind,
}

enum Behind {
    Folder(PathBuf),
    Bucket(Bucket),
}

#[derive(Clone, Copy)]
pub enum Kind {
    Directory,
    S3,
}

/// Makes one test per kind of store out of an `async fn(&TestFiles)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod directory { $(#[test] fn $name() { crate::support::run(crate::support::Kind::Directory, |t| Box::pin(super::$name(t))); })+ }
        mod s3 { $(#[test] fn $name() { crate::support::run(crate::support::Kind::S3, |t| Box::pin(super::$name(t))); })+ }
    };
}
pub(crate) use both;

type Body = for<'a> fn(&'a TestFiles) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub fn run(kind: Kind, body: Body) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match kind {
            Kind::Directory => {
                let folder = tempfile::tempdir().unwrap();
                let files = Directory::open(folder.path()).await.unwrap();
                body(&TestFiles { files: Box::new(files), behind: Behind::Folder(folder.path().to_owned()) }).await;
            }
            Kind::S3 => on_s3(body).await,
        }
    });
}

async fn on_s3(body: Body) {
    let config = s3_config(&id::new("test_", SystemClock.now()));
    let files = S3Files::open(&config).unwrap();
    if !answers(&files, &config).await {
        return;
    }
    let test = TestFiles { files: Box::new(files), behind: Behind::Bucket(Bucket::new(&config)) };
    let outcome = AssertUnwindSafe(body(&test)).catch_unwind().await;
    if let Behind::Bucket(bucket) = &test.behind {
        bucket.empty().await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Whether the test's S3 is there; says so when it is not.
pub async fn answers(files: &S3Files, config: &S3Config) -> bool {
    let Err(error) = files.check().await else { return true };
    assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no S3 at {}: {error}", config.url);
    // Not `eprintln!`: the test harness would swallow it.
    let line = format!("SKIPPED: no S3 at {} ({error}); run deploy/services up\n", config.url);
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

/// The test's S3, below `prefix`.
pub fn s3_config(prefix: &str) -> S3Config {
    let or = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let local = "s3://aigateway-tests?endpoint=http://127.0.0.1:9000&region=us-east-1";
    let mut url: Url = or("AIG_TEST_S3_URL", local).parse().unwrap();
    url.set_path(&format!("{}/{prefix}", url.path().trim_end_matches('/')));
    S3Config {
        url: url.into(),
        access_key_id: Some(Secret::new(or("AIG_TEST_S3_ACCESS_KEY_ID", "aigateway-tests"))),
        secret_access_key: Some(Secret::new(or("AIG_TEST_S3_SECRET_ACCESS_KEY", "aigateway-tests"))),
    }
}

impl TestFiles {
    /// The text in `range` of a file.
    pub async fn text(&self, key: &str, range: std::ops::Range<u64>) -> String {
        String::from_utf8(self.bytes(key, range).await).unwrap()
    }

    /// The bytes in `range` of a file.
    pub async fn bytes(&self, key: &str, range: std::ops::Range<u64>) -> Vec<u8> {
        let chunks: Vec<Bytes> = self.files.read(key, range).await.unwrap().try_collect().await.unwrap();
        chunks.concat()
    }

    /// Everything in the store, whole or unfinished.
    pub async fn left(&self) -> Vec<String> {
        match &self.behind {
            Behind::Folder(root) => files_below(root),
            Behind::Bucket(bucket) => {
                let uploads = bucket.uploads().await.into_iter().map(|(key, _)| format!("upload of {key}"));
                bucket.objects().await.into_iter().map(String::from).chain(uploads).collect()
            }
        }
    }
}

fn files_below(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let below = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { files_below(&path) } else { vec![path.display().to_string()] }
    });
    below.collect()
}

/// The chunks of a source that does not break.
pub fn body(chunks: &[&'static str]) -> Incoming {
    let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
    Box::pin(stream::iter(chunks))
}

/// `length` bytes that repeat, but not where parts of a file meet.
pub fn noise(length: usize) -> Bytes {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let block: Vec<u8> = std::iter::repeat_with(&mut next).take(99_991).collect();
    let mut bytes = block.repeat(length / block.len() + 1);
    bytes.truncate(length);
    bytes.into()
}

/// `bytes` in chunks of `size`.
pub fn chunks(bytes: &Bytes, size: usize) -> Vec<Result<Bytes, String>> {
    (0..bytes.len()).step_by(size).map(|start| Ok(bytes.slice(start..bytes.len().min(start + size)))).collect()
}

/// The bucket, seen past the adapter.
struct Bucket {
    store: AmazonS3,
    place: Url,
    region: String,
    prefix: path::Path,
}

impl Bucket {
    fn new(config: &S3Config) -> Self {
        let url: Url = config.url.parse().unwrap();
        let parameter =
            |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let region = parameter("region").unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = parameter("endpoint").unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let bucket = url.host_str().unwrap();
        let store = AmazonS3Builder::new()
            .with_allow_http(true)
            .with_disable_bulk_delete(true)
            .with_endpoint(&endpoint)
            .with_region(&region)
            .with_bucket_name(bucket)
            .with_access_key_id(config.access_key_id.as_ref().unwrap().expose())
            .with_secret_access_key(config.secret_access_key.as_ref().unwrap().expose())
            .build()
            .unwrap();
        let place = format!("{}/{bucket}", endpoint.trim_end_matches('/')).parse().unwrap();
        Self { store, place, region, prefix: path::Path::from(url.path()) }
    }

    async fn objects(&self) -> Vec<path::Path> {
        self.store.list(Some(&self.prefix)).map_ok(|meta| meta.location).try_collect().await.unwrap()
    }

    /// The unfinished uploads, (key, id); none on a server that cannot list them.
    async fn uploads(&self) -> Vec<(String, String)> {
        let mut place = self.place.clone();
        place.query_pairs_mut().append_pair("prefix", self.prefix.as_ref()).append_pair("uploads", "");
        let mut request = http::Request::get(place.as_str()).body(HttpRequestBody::empty()).unwrap();
        let credential = self.store.credentials().get_credential().await.unwrap();
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None).unwrap();
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
        let answer = client.execute(request).await.unwrap();
        if !answer.status().is_success() {
            return Vec::new();
        }
        let text = String::from_utf8(answer.into_body().bytes().await.unwrap().into()).unwrap();
        let tags = |name: &str| -> Vec<String> {
            let end = format!("</{name}>");
            text.split(&format!("<{name}>")).skip(1).map(|rest| rest.split(&end).next().unwrap().to_owned()).collect()
        };
        tags("Key").into_iter().zip(tags("UploadId")).collect()
    }

    async fn empty(&self) {
        for path in self.objects().await {
            self.store.delete(&path).await.unwrap();
        }
        for (key, id) in self.uploads().await {
            self.store.abort_multipart(&path::Path::from(key), &id).await.unwrap();
        }
    }
}
