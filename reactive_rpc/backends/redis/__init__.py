"""Redis: the log that one relay feeds for many workers, shared results, the ephemeral store."""
