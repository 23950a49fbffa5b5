"""Streams that come and go for long: nothing that they leave behind may grow."""
