"""Unit tests of `reactive_rpc.statements`."""
