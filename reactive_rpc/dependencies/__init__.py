"""What a result depends on: read sets, changes, and the index that finds the results that a change touches."""
