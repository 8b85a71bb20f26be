//! Adapters to AI providers.
