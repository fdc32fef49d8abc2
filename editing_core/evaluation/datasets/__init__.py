"""Published editing benchmarks as the bench's own cases."""
