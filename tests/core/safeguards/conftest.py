"""Used by the tests of safeguards: a few prompts of the testbed's own set."""

import pytest

from core.attacks.prompts import choose_prompts
from core.lm.load import BaseModel
from core.schemas.prompts import PromptSet
from core.schemas.security import SecuritySpec


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> PromptSet:
    """The testbed's own prompt set, reduced to a few prompts."""
    whole = choose_prompts(SecuritySpec(), base.folder)
    probe = whole.probe.model_copy(update={"harmful": whole.probe.harmful[:8], "safe": whole.probe.safe[:6]})
    return whole.model_copy(update={"probe": probe})
