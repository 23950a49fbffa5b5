"""Tests of `reactive_rpc.sql` on real databases."""
