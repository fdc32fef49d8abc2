"""The database: an append-only event log, and what it refers to. The truth of the server."""
