"""A job from assignment to outcome: `run.py` is the whole story on one page, each other file one part of it."""
