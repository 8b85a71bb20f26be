//! The life of a provider call: resolve, admit, dispatch, relay, settle.
