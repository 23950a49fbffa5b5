"""Canaries: each fails when a library moves a private name that the package uses."""
