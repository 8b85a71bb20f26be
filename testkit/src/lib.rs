//! Scriptable fakes for tests: providers that count what they billed, a webhook receiver.
