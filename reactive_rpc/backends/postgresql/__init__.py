"""PostgreSQL: sessions, what a text reads, capture by triggers, the log, the ephemeral store."""
