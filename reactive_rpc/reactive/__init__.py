"""Pure logic, no I/O: what changed, what was read, and who is touched."""
