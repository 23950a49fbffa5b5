"""From a statement that SQLAlchemy renders to the read set of its result, for every database."""
