//! Best-effort signals between processes.
