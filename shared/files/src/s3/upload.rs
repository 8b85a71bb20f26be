//! A file on its way to S3: one request when it is small, else a multipart upload of which a few parts are in flight.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt as _};

use super::failure::{Failure, within};
use super::{ANSWER, COMPLETE, PART_TIME, S3Files};
use crate::FilesError;

/// The size of all parts but the last; S3 wants at least 5 MiB, and allows 10,000 parts: files up to 78 GiB.
pub(super) const PART: usize = 8 * 1024 * 1024;
/// How many parts are sent at once. With the one being filled, a file takes three parts of memory.
pub(super) const IN_FLIGHT: usize = 2;

/// Parts being sent, each with its number.
type Parts = FuturesUnordered<BoxFuture<'static, Result<(usize, PartId), Failure>>>;

/// A file being sent.
pub(super) struct Upload<'a> {
    files: &'a S3Files,
    path: Path,
    filling: BytesMut,
    in_flight: Parts,
    sent: Vec<(usize, PartId)>,
    started: Option<Started<'a>>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(files: &'a S3Files, path: Path) -> Self {
        let (in_flight, sent) = (Parts::new(), Vec::new());
        Self { files, path, filling: BytesMut::new(), in_flight, sent, started: None }
    }

    /// Adds `chunk`; waits while as much as allowed is in flight.
    pub(super) async fn add(&mut self, mut chunk: Bytes) -> Result<(), FilesError> {
        while !chunk.is_empty() {
            if self.filling.len() == PART {
                self.send_part().await?;
            }
            let fits = chunk.len().min(PART - self.filling.len());
            self.filling.extend_from_slice(&chunk.split_to(fits));
        }
        Ok(())
    }

    /// Goes on with the parts in flight until one of them is sent, and never ends when there is none. May be dropped at any time.
    pub(super) async fn progress(&mut self) -> Result<(), FilesError> {
        match self.in_flight.next().await {
            Some(part) => self.sent.push(part?),
            None => std::future::pending().await,
        }
        Ok(())
    }

    /// Sends what is left. The file is stored when this returns, and not before.
    pub(super) async fn finish(mut self) -> Result<(), FilesError> {
        if self.started.is_none() {
            let whole = self.filling.split().freeze();
            within(PART_TIME, self.files.store.put(&self.path, whole.into())).await?;
            return Ok(());
        }
        self.send_part().await?;
        while !self.in_flight.is_empty() {
            self.progress().await?;
        }
        self.sent.sort_unstable_by_key(|(number, _)| *number);
        let parts = self.sent.drain(..).map(|(_, part)| part).collect();
        if let Some(started) = &mut self.started {
            let complete = self.files.store.complete_multipart(&started.path, &started.id, parts);
            within(COMPLETE, complete).await?;
            started.over = true;
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), FilesError> {
        while self.in_flight.len() >= IN_FLIGHT {
            self.progress().await?;
        }
        let started = match &mut self.started {
            Some(started) => started,
            none => none.insert(Started::new(self.files, self.path.clone()).await?),
        };
        let part = std::mem::replace(&mut self.filling, BytesMut::with_capacity(PART)).freeze();
        let (store, path, id) = (self.files.store.clone(), started.path.clone(), started.id.clone());
        let number = self.sent.len() + self.in_flight.len();
        self.in_flight.push(Box::pin(async move {
            let sent = within(PART_TIME, store.put_part(&path, &id, number, part.into())).await?;
            Ok((number, sent))
        }));
        Ok(())
    }
}

/// A multipart upload that S3 knows of. Dropped before it is over, it is left to [`S3Files::sweep`]: S3 would keep its parts.
pub(super) struct Started<'a> {
    files: &'a S3Files,
    path: Path,
    id: MultipartId,
    over: bool,
}

impl<'a> Started<'a> {
    async fn new(files: &'a S3Files, path: Path) -> Result<Self, Failure> {
        let id = within(ANSWER, files.store.create_multipart(&path)).await?;
        Ok(Self { files, path, id, over: false })
    }

    /// An upload that an earlier call left.
    pub(super) fn left(files: &'a S3Files, (path, id): (Path, MultipartId)) -> Self {
        Self { files, path, id, over: false }
    }

    /// Makes S3 forget the parts.
    pub(super) async fn abort(&mut self) -> Result<(), Failure> {
        match within(ANSWER, self.files.store.abort_multipart(&self.path, &self.id)).await {
            Err(failure) if !failure.missing => return Err(failure),
            _ => {}
        }
        self.over = true;
        Ok(())
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.files.leave(self.path.clone(), std::mem::take(&mut self.id));
        }
    }
}
