"""Rules and records with real databases, and in Node."""
