"""Pages of a list between two keys: the cursors, how columns compare with them, and the statement."""
