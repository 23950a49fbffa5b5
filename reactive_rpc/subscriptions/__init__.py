"""Notifying clients: streams, the queries that they watch, and acknowledgements."""
