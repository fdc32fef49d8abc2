"""The database's schema, one numbered step a file, forwards only."""
