"""The embedded benchmark: small tasks of the project's own in every family's genuine format."""
