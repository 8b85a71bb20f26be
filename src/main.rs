//! The `aigateway` binary.
fn main() {}
