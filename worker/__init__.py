"""The worker: claims jobs, runs each in its own training process, and records the results."""
