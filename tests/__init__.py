"""Tests, in folders that mirror the package: see README.md."""
