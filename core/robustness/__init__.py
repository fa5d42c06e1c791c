"""Which modules are robust: can change without moving the model's security features (arXiv 2410.04524)."""
