//! One file per tick.

pub(crate) mod dispatch;
pub(crate) mod overdue;
pub(crate) mod rescue;
pub(crate) mod retain;
