"""Write capture on PostgreSQL: triggers that put each changed row, as a lean image, into an outbox table."""
