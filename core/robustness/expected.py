"""How many measurements an analysis needs, for progress and for estimates of jobs. It needs no torch.

Not here: the measurements (core.robustness.analyse), the search (core.robustness.search).
"""

from collections.abc import Collection, Mapping
from typing import assert_never

from core.schemas.analysis import (
    CIRCUITS,
    AnalysisSpec,
    GradientPerturbation,
    NoisePerturbation,
    SwapPerturbation,
    UnitKind,
)

FEW_UNITS = 8
"""Up to this number, units are ordered by their effect on a growing set: at most 35 joint measurements."""


def count_units(layers: int, types: Collection[str], bands: int) -> dict[UnitKind, int]:
    """Number of units of each kind, of a model with one module of each type in every layer."""
    bands = min(bands, layers)
    return {
        "module": layers * len(types),
        "circuit": len({CIRCUITS.get(each, each) for each in types}),
        "type": len(types),
        "band": bands,
        "type_band": bands * len(types),
    }


def expect_measurements(analysis: AnalysisSpec, units: Mapping[UnitKind, int]) -> int:
    """An estimate of the number of measurements, from the number of units of each kind; the search usually needs
    fewer.
    """
    match analysis.perturbation:
        case NoisePerturbation(seeds=seeds):
            each = sum(units.values())
        case SwapPerturbation(seeds=seeds):
            each = 2 * sum(units.values())
        case GradientPerturbation(seeds=seeds, points=points):
            each = points
        case _:
            assert_never(analysis.perturbation)
    searched = units[analysis.unit]
    growing = searched * (searched + 1) // 2 if searched <= FEW_UNITS else searched.bit_length() + 10
    return seeds * each + growing + 1
