//! The composition root: configuration, wiring, lifecycle, telemetry.
