"""Logs on real databases."""
