"""The dependencies of a result: read sets, changes, and the index that finds the results that a change touches."""
