//! The contract of a file store, run on a folder and on S3 (`AIG_TEST_S3_URL`, default the local server), and what is true of
//! S3 alone.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod put;
mod s3;
mod silent;
mod support;
