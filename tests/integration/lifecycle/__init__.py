"""Servers as they are run: several workers, reloading, stopping, behind a balancer."""
