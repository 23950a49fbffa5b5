"""Write capture on SQLite: triggers that put each changed row, as a lean image, into an outbox table."""
