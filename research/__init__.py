"""Experiments and benchmarks: the evidence behind the product. Not part of the installed package."""


def ignore(*_: object) -> None:
    """Discard progress."""
