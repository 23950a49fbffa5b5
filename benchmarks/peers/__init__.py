"""Servers of others that answer what `benchmarks/servers.py` does; nothing here depends on their packages."""
