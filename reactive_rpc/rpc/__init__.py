"""Procedures: what a decorated function is, how it is called, and on whose behalf."""
