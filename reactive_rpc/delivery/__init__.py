"""Telling clients: streams, what they watch, and acknowledgements."""
