"""Results that are never stale: the store, single flight, and the reader protocol that ties both to the log."""
