"""Unit tests of `reactive_rpc.sql`."""
