"""Rows that join and leave while others decode: one forward pass a step, for all of them."""
