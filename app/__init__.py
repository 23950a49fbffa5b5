"""TeamHub, the example application: organizations, their agents, and what these say, remember and use."""
