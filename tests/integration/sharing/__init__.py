"""Shared results on a real Redis."""
