"""What the speeds of a model apply to."""

from core.lm.device import speeds_of
from core.lm.load import BaseModel
from core.processes import memory_limit


def test_a_model_on_a_cpu(base: BaseModel) -> None:
    found = speeds_of(base)
    assert (found.model, found.parameters) == (base.identity.name, base.identity.parameters)
    assert found.sha256 == base.identity.sha256
    assert found.device.startswith("CPU (")
    assert found.device.endswith(" threads")
    assert found.memory_bytes == memory_limit()
