"""Finds the robust modules: those that can change without moving the security features (arXiv 2410.04524)."""
