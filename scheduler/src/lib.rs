//! Periodic work: dispatch, rescue, retention.
