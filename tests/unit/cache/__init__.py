"""The reader protocol, against a log that the test writes."""
