"""The device: the one thread that runs the model. It is reached by messages and nothing else."""
