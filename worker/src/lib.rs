//! Runs tasks: generates media, delivers webhooks.
