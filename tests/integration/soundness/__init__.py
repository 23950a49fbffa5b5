"""The differential soundness test of read sets."""
