"""Procedures: from a decorated function to a call that runs, and what its result depends on."""
