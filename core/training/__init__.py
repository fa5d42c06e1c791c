"""Turns a robustness map into learning rates, and learning rates into a trained adapter."""
