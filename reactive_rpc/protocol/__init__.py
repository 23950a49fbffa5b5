"""The wire, without I/O: codes, envelopes, cursors, events, and the SSE encoder and push decoder."""
