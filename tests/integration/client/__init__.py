"""The generated client against the real server."""
