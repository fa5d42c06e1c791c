"""Turns a Report into something a person likes to look at."""
