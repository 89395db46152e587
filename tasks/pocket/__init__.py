"""The embedded benchmark: small tasks that the project wrote itself, in the genuine formats of all families."""
