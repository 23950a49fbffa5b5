"""Tests of `reactive_rpc.statements` on real databases."""
