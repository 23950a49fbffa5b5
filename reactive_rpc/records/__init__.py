"""Models as procedures: one rule for the database and for every client."""
