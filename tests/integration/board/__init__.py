"""Boards on real servers and files: what becomes of them when those fail."""
