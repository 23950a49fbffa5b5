"""TeamHub's page in a real browser."""
