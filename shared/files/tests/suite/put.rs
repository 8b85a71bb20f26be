//! A file is there whole, as it came, or not at all.

use aig_files::{FilesError, Incoming};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future, stream};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::support::{MIB, TestFiles, body, both, chunks, noise};

both!(
    what_was_put_is_read_by_range_until_deleted,
    what_is_not_there_is_said_so,
    an_empty_file_is_a_file,
    a_large_file_comes_back_as_it_was,
    sizes_around_a_part_are_kept,
    a_file_is_replaced_in_one_step,
    what_failed_leaves_nothing,
    a_failed_put_keeps_the_earlier_file,
    a_put_given_up_leaves_nothing,
    puts_at_the_same_time_leave_one_whole_file,
    a_key_cannot_lead_out_of_the_store,
);

async fn what_was_put_is_read_by_range_until_deleted(t: &TestFiles) {
    let stored = t.files.put("jobs/j/1/a.mp4", body(&["hello ", "world", ", once again"]), 100).await.unwrap();
    assert_eq!((stored.bytes, &stored.head[..]), (23, &b"hello world, onc"[..]));
    assert_eq!(stored.sha256, hex::encode(Sha256::digest(b"hello world, once again")));
    assert_eq!(t.files.size("jobs/j/1/a.mp4").await.unwrap(), Some(23));
    assert_eq!(t.text("jobs/j/1/a.mp4", 0..23).await, "hello world, once again");
    assert_eq!(t.text("jobs/j/1/a.mp4", 6..9).await, "wor");
    assert_eq!(t.text("jobs/j/1/a.mp4", 6..6).await, "");
    let past: Vec<_> = match t.files.read("jobs/j/1/a.mp4", 20..30).await {
        Ok(stream) => stream.collect().await,
        Err(error) => vec![Err(error)],
    };
    assert!(past.last().unwrap().is_err(), "a range that is not in the file is an error");
    t.files.delete("jobs/j/1/a.mp4").await.unwrap();
    t.files.delete("jobs/j/1/a.mp4").await.unwrap();
    assert_eq!(t.files.size("jobs/j/1/a.mp4").await.unwrap(), None);
    assert_eq!(t.left().await, [""; 0]);
}

async fn what_is_not_there_is_said_so(t: &TestFiles) {
    t.files.check().await.unwrap();
    assert_eq!(t.files.size("a").await.unwrap(), None);
    assert!(t.files.read("a", 0..1).await.is_err());
    t.files.delete("a").await.unwrap();
    assert_eq!(t.left().await, [""; 0]);
}

async fn an_empty_file_is_a_file(t: &TestFiles) {
    let stored = t.files.put("a", body(&[]), 0).await.unwrap();
    assert_eq!((stored.bytes, stored.head.len()), (0, 0));
    assert_eq!(stored.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(t.files.size("a").await.unwrap(), Some(0));
    assert_eq!(t.text("a", 0..0).await, "");
}

async fn a_large_file_comes_back_as_it_was(t: &TestFiles) {
    let data = noise(20 * MIB);
    let source: Incoming = Box::pin(stream::iter(chunks(&data, 100_001)));
    let stored = t.files.put("a", source, 20 * MIB as u64).await.unwrap();
    assert_eq!((stored.bytes, stored.head), (data.len() as u64, data.slice(..16)));
    assert_eq!(stored.sha256, hex::encode(Sha256::digest(&data)));
    assert!(t.bytes("a", 0..data.len() as u64).await == data, "the bytes are the same");
    let border = 8 * MIB;
    assert_eq!(t.bytes("a", border as u64 - 5..border as u64 + 5).await, data[border - 5..border + 5]);
    assert_eq!(t.left().await.len(), 1);
}

async fn sizes_around_a_part_are_kept(t: &TestFiles) {
    let data = noise(8 * MIB + 1);
    for length in [8 * MIB - 1, 8 * MIB, 8 * MIB + 1] {
        let stored = t.files.put("a", Box::pin(stream::iter([Ok(data.slice(..length))])), u64::MAX).await.unwrap();
        assert_eq!(stored.bytes, length as u64);
        assert_eq!(t.files.size("a").await.unwrap(), Some(length as u64));
        assert_eq!(t.bytes("a", length as u64 - 3..length as u64).await, data[length - 3..length]);
    }
}

/// A source of 9 MiB and then, when `rest` is sent or dropped, 3 MiB more.
fn interrupted(rest: oneshot::Receiver<()>) -> Incoming {
    let last = async { rest.await.map(|()| noise(3 * MIB)).map_err(|_| "cut".to_owned()) };
    Box::pin(stream::iter(chunks(&noise(9 * MIB), MIB)).chain(last.into_stream()))
}

async fn a_file_is_replaced_in_one_step(t: &TestFiles) {
    t.files.put("a", body(&["old"]), 100).await.unwrap();
    let (go, rest) = oneshot::channel();
    let look = async {
        assert_eq!(t.text("a", 0..3).await, "old");
        go.send(()).unwrap();
    };
    let (stored, ()) = future::join(t.files.put("a", interrupted(rest), u64::MAX), look).await;
    assert_eq!(stored.unwrap().bytes, 12 * MIB as u64);
    assert_eq!(t.files.size("a").await.unwrap(), Some(12 * MIB as u64));
    t.files.put("a", body(&["new"]), 100).await.unwrap();
    assert_eq!((t.text("a", 0..3).await, t.left().await.len()), ("new".to_owned(), 1));
}

async fn what_failed_leaves_nothing(t: &TestFiles) {
    let broken: Incoming = Box::pin(stream::iter([Ok(Bytes::from_static(b"half")), Err("cut".to_owned())]));
    assert!(matches!(t.files.put("a", broken, 100).await, Err(FilesError::Source(why)) if why == "cut"));
    let broken = interrupted(oneshot::channel().1);
    assert!(matches!(t.files.put("a", broken, u64::MAX).await, Err(FilesError::Source(why)) if why == "cut"));
    assert!(matches!(t.files.put("a", body(&["12345", "67890"]), 9).await, Err(FilesError::TooLarge(9))));
    assert_eq!(t.left().await, [""; 0]);
}

async fn a_failed_put_keeps_the_earlier_file(t: &TestFiles) {
    t.files.put("a", body(&["old"]), 100).await.unwrap();
    assert!(t.files.put("a", body(&["too long"]), 3).await.is_err());
    let large = Box::pin(stream::iter(chunks(&noise(20 * MIB), MIB)));
    let limit = 18 * MIB as u64;
    assert!(matches!(t.files.put("a", large, limit).await, Err(FilesError::TooLarge(bytes)) if bytes == limit));
    assert_eq!((t.text("a", 0..3).await, t.left().await.len()), ("old".to_owned(), 1));
}

async fn a_put_given_up_leaves_nothing(t: &TestFiles) {
    let (begun, begins) = oneshot::channel();
    let mark = stream::once(async { begun.send(()).map(|()| Bytes::new()).map_err(|()| "nobody waits".to_owned()) });
    // A part is on its way when the source says so, and then nothing more.
    let source = stream::iter(chunks(&noise(9 * MIB), MIB)).chain(mark).chain(stream::pending());
    future::select(t.files.put("a", Box::pin(source), u64::MAX), begins).await;
    t.files.check().await.unwrap();
    assert_eq!(t.left().await, [""; 0]);
}

async fn puts_at_the_same_time_leave_one_whole_file(t: &TestFiles) {
    let puts = (0..20).map(|i| {
        let line: &'static str = if i % 2 == 0 { "aaaaaaaa" } else { "bbbbbbbb" };
        t.files.put("k", body(&[line, line]), 100)
    });
    for stored in future::join_all(puts).await {
        stored.unwrap();
    }
    let read = t.text("k", 0..16).await;
    assert!(read == "a".repeat(16) || read == "b".repeat(16), "{read}");
    assert_eq!(t.left().await.len(), 1);
}

async fn a_key_cannot_lead_out_of_the_store(t: &TestFiles) {
    for key in ["../a", "/a", "a/../b", "a//b", ".check", ""] {
        assert!(matches!(t.files.put(key, body(&["x"]), 9).await, Err(FilesError::BadKey(_))), "{key}");
        assert!(matches!(t.files.size(key).await, Err(FilesError::BadKey(_))), "{key}");
        assert!(matches!(t.files.read(key, 0..1).await, Err(FilesError::BadKey(_))), "{key}");
        assert!(matches!(t.files.delete(key).await, Err(FilesError::BadKey(_))), "{key}");
    }
    assert_eq!(t.left().await, [""; 0]);
}
