"""Unit tests of `reactive_rpc.records.rules`."""
