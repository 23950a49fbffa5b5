"""Modules of PostgreSQL that need no server."""
