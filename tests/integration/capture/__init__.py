"""Capture on real databases."""
