"""Each back end on its real database: capture, log, ephemeral store."""
