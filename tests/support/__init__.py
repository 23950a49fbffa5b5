"""Shared by tests of several folders, and by benchmarks; what one folder alone needs stays in it."""
