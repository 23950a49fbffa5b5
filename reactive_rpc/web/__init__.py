"""The HTTP side: routes and streams."""
