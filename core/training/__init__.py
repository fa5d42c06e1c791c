"""Turns a robustness map into learning rates, and trains with them."""
