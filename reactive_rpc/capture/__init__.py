"""Write capture: triggers that put each changed row, as a lean image, into an outbox table of the same database."""
