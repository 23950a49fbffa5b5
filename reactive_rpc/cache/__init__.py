"""Results that are never stale: the reader, its store, and how both follow the log."""
