//! What the parts can do by themselves, measured in the same run: the limits beside which our own figures stand.

pub mod celery;
pub mod commits;
pub mod confirms;
