"""Examples that are computed from schemas: they are what their classes take."""

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from api.examples import sample
from core.schemas.gate import OverrideRequest
from core.schemas.job import JobSpec
from core.schemas.policy import Policy
from core.schemas.problems import Readiness
from core.schemas.replies import (
    ArtifactReply,
    BenchmarkReply,
    DatasetReply,
    EventReply,
    JobReply,
    JudgeReply,
    ModelReply,
    Page,
    PolicyReply,
    PromptSetReply,
)
from core.schemas.screening import ScreenRequest

CLASSES = [
    ArtifactReply, BenchmarkReply, DatasetReply, EventReply, JobReply, JobSpec, JudgeReply, ModelReply, OverrideRequest,
    Page[DatasetReply], Policy, PolicyReply, PromptSetReply, Readiness, ScreenRequest,
]  # fmt: skip


def example_of(schema: dict[str, Any]) -> object:
    return sample(schema, {f"{name}": each for name, each in schema.get("$defs", {}).items()})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_an_example_is_what_its_class_takes(kind: type[BaseModel], mode: Any) -> None:
    kind.model_validate(example_of(kind.model_json_schema(mode=mode)))


def test_an_example_of_a_field_goes_before_its_default() -> None:
    schema = TypeAdapter(str).json_schema() | {"default": "b", "examples": ["a"]}
    assert example_of(schema) == "a"
    assert example_of({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}) is None
    assert example_of({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}) == ["string", 0.5]
