"""Tailers: from the database's outbox to batches of changes, in commit order. One contract, `log.py`."""
