"""The procedures, one module a group."""
