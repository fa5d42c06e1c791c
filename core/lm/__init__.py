"""The language model: loads it, finds its modules, attaches adapters, and generates answers."""
