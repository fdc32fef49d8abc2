"""Trains routers and editors on a frozen backbone; every run survives being killed."""
