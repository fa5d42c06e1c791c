"""A job from its assignment to its outcome. `run.py` shows the whole job; each other file is one part of it."""
