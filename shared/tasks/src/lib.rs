//! The task engine: claim, lease, checkpoint, finish, dispatch, rescue.
