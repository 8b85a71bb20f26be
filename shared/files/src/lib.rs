//! Result files: stored durably, served by range.
