"""Benchmarks, one file a figure: `python -m bench.NAME`. See README.md here for what each measures."""
