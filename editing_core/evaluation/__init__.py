"""Measures models and editors by exact match under free greedy generation, on unseen probes."""
