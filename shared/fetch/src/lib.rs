//! HTTP out: the trusted pool, the untrusted fetcher, the SSE framer.
