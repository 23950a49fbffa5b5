"""Streams over HTTP: server-sent events, long poll, acknowledgements, sets of queries, tickets."""
