//! What is true of a folder alone; the contract is tested in `tests/suite`.

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::*;

fn body(text: &'static str) -> Incoming {
    Box::pin(stream::iter([Ok(Bytes::from_static(text.as_bytes()))]))
}

#[tokio::test]
async fn empty_folders_go_with_their_last_file() {
    let temp = tempfile::tempdir().unwrap();
    let files = Directory::open(temp.path()).await.unwrap();
    files.put("jobs/j/1/a", body("a"), 100).await.unwrap();
    files.put("jobs/k/1/b", body("b"), 100).await.unwrap();
    files.delete("jobs/j/1/a").await.unwrap();
    assert!(!temp.path().join("jobs/j").exists() && temp.path().join("jobs/k/1/b").exists());
    files.delete("jobs/k/1/b").await.unwrap();
    assert!(!temp.path().join("jobs").exists());
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let files = Directory::open(temp.path()).await.unwrap();
    files.put("a", body("kept"), 100).await.unwrap();
    let (old, fresh) = (temp.path().join(UNFINISHED).join("old"), temp.path().join(UNFINISHED).join("fresh"));
    std::fs::write(&fresh, b"half").unwrap();
    let written = std::fs::metadata(&fresh).unwrap().modified().unwrap();
    let file = std::fs::File::create(&old).unwrap();
    file.set_modified(written - ABANDONED - Duration::from_secs(1)).unwrap();
    let reopened = Directory::open(temp.path()).await.unwrap();
    assert!(!old.exists(), "nobody can be at it any more");
    assert!(fresh.exists(), "another process may be at it");
    let chunks: Vec<Bytes> = reopened.read("a", 0..4).await.unwrap().try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"kept");
    reopened.check().await.unwrap();
}
