"""Contracts of `reactive_rpc.changes` whose back ends are tried side by side."""
