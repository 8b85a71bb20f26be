//! The broker: a doorbell that tells workers to look at the database.
