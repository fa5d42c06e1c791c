"""Used by the tests of the pipeline: a store, and a job whose model and data are in memory."""

from pathlib import Path

import pytest

from core.attacks.prompts import choose_prompts, identify_prompts
from core.catalog import TESTBED
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.pipeline.context import JobContext
from core.pipeline.stages import Stages
from core.schemas.screening import ScreeningPolicy, ScreeningResult
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import SPEC, RecordedEvents, assign, encoded_rows, upload


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def prepared(base: BaseModel, modules: tuple[Module, ...], store: ArtifactStore) -> JobContext:
    assignment, emit = assign(SPEC, upload(store, conversations(8))), RecordedEvents()
    rows = encoded_rows(assignment, store, base)
    prompts = choose_prompts(SPEC.security, base.folder)
    stages = Stages(store, "j", emit, ("robustness",))
    nothing = ScreeningResult(policy=ScreeningPolicy(), rows=8, checks=(), findings=(), seconds=0.0)
    used = identify_prompts(SPEC.security, base.folder)
    return JobContext(assignment, TESTBED, store, stages, emit, base, modules, prompts, rows, {}, nothing, used)
