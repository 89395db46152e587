"""SQL: reading it, comparing it, running it."""
