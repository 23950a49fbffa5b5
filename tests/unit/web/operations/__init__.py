"""Endpoints with `@reactive`, without an application."""
