//! A folder keeps whole files or none.

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::*;

fn body(chunks: &[&'static str]) -> Incoming {
    let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
    Box::pin(stream::iter(chunks))
}

async fn folder() -> (tempfile::TempDir, Directory) {
    let temp = tempfile::tempdir().unwrap();
    let files = Directory::open(temp.path()).await.unwrap();
    (temp, files)
}

async fn text(files: &Directory, key: &str, range: Range<u64>) -> String {
    let chunks: Vec<Bytes> = files.read(key, range).await.unwrap().try_collect().await.unwrap();
    String::from_utf8(chunks.concat()).unwrap()
}

/// Everything below the folder that is a file.
fn all_files(root: &Path) -> usize {
    std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| if entry.file_type().unwrap().is_dir() { all_files(&entry.path()) } else { 1 })
        .sum()
}

#[tokio::test]
async fn what_was_put_is_read_by_range_until_deleted() {
    let (temp, files) = folder().await;
    let stored = files.put("jobs/j/1/a.mp4", body(&["hello ", "world"]), 100).await.unwrap();
    assert_eq!((stored.bytes, &stored.head[..]), (11, &b"hello world"[..]));
    assert_eq!(stored.sha256, "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
    assert_eq!(files.size("jobs/j/1/a.mp4").await.unwrap(), Some(11));
    assert_eq!(text(&files, "jobs/j/1/a.mp4", 0..11).await, "hello world");
    assert_eq!(text(&files, "jobs/j/1/a.mp4", 6..9).await, "wor");
    files.delete("jobs/j/1/a.mp4").await.unwrap();
    files.delete("jobs/j/1/a.mp4").await.unwrap();
    assert_eq!(files.size("jobs/j/1/a.mp4").await.unwrap(), None);
    assert!(!temp.path().join("jobs").exists(), "empty folders go too");
}

#[tokio::test]
async fn what_failed_leaves_nothing() {
    let (temp, files) = folder().await;
    let broken: Incoming = Box::pin(stream::iter([Ok(Bytes::from_static(b"half")), Err("cut".to_owned())]));
    assert!(matches!(files.put("a", broken, 100).await, Err(FilesError::Source(_))));
    assert!(matches!(files.put("a", body(&["12345", "67890"]), 9).await, Err(FilesError::TooLarge(9))));
    assert!(matches!(files.put("../a", body(&["x"]), 9).await, Err(FilesError::BadKey(_))));
    assert_eq!(all_files(temp.path()), 0);
}

#[tokio::test]
async fn a_failed_put_keeps_the_earlier_file() {
    let (_temp, files) = folder().await;
    files.put("a", body(&["old"]), 100).await.unwrap();
    assert!(files.put("a", body(&["too long"]), 3).await.is_err());
    assert_eq!(text(&files, "a", 0..3).await, "old");
}

#[tokio::test]
async fn puts_at_the_same_time_leave_one_whole_file() {
    let (temp, files) = folder().await;
    let puts = (0..20).map(|i| {
        let line: &'static str = if i % 2 == 0 { "aaaaaaaa" } else { "bbbbbbbb" };
        files.put("k", body(&[line, line]), 100)
    });
    for stored in futures_util::future::join_all(puts).await {
        stored.unwrap();
    }
    let read = text(&files, "k", 0..16).await;
    assert!(read == "a".repeat(16) || read == "b".repeat(16), "{read}");
    assert_eq!(all_files(temp.path()), 1);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed() {
    let (temp, files) = folder().await;
    files.put("a", body(&["kept"]), 100).await.unwrap();
    std::fs::write(temp.path().join(UNFINISHED).join("1-1"), b"half").unwrap();
    let reopened = Directory::open(temp.path()).await.unwrap();
    assert_eq!(all_files(temp.path()), 1);
    assert_eq!(text(&reopened, "a", 0..4).await, "kept");
    reopened.check().await.unwrap();
}
