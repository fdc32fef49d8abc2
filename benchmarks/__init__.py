"""One script per claim. Results are committed under `results/`, with machine, date and commit."""
