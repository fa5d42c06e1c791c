"""The behaviour itself, answered several times at a temperature."""

from core.attacks.families import direct
from core.attacks.family import Family, Sampling, deal
from core.schemas.attacks import BestOfN


def _sampling(options: BestOfN) -> Sampling:
    return Sampling(options.samples, options.temperature, options.top_p)


FAMILY = Family(BestOfN, deal(direct.TEMPLATES), _sampling)
