"""Benchmarks, one file a figure: `python -m research.bench.NAME`. See README.md here for what each measures."""

import os

# As in a training process (worker.child). It has to be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
