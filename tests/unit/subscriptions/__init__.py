"""The hub and its streams, on time that stands still."""
