"""Every schema class is frozen, closed, finite and documented, because the API's documentation is generated from it."""

import importlib
import pkgutil
from types import ModuleType

import pytest
from pydantic import Field, ValidationError

import core.schemas
from core.schemas.base import Frozen
from core.schemas.screening import ScreeningPolicy


def classes() -> list[type[Frozen]]:
    files: list[ModuleType] = [
        importlib.import_module(f"core.schemas.{entry.name}") for entry in pkgutil.iter_modules(core.schemas.__path__)
    ]
    return [
        value
        for file in files
        for value in vars(file).values()
        if isinstance(value, type) and issubclass(value, Frozen) and value.__module__ == file.__name__
    ]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_class_and_field_is_documented(kind: type[Frozen]) -> None:
    assert kind.model_config.get("frozen") is True
    assert kind.model_config.get("allow_inf_nan") is False
    assert kind.__doc__
    for name, field in kind.model_fields.items():
        assert field.description, f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_class_rejects_unknown_fields(kind: type[Frozen]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"no_such_field": 1})
    assert ("extra_forbidden", ("no_such_field",)) in {(each["type"], each["loc"]) for each in caught.value.errors()}


def test_the_list_above_is_not_empty() -> None:
    assert {"JobSpec", "Figure", "Report", "Progress"} <= {kind.__name__ for kind in classes()}


class Point(Frozen):
    """A place."""

    x: float = Field(default=0.0, ge=-10)
    """To the right."""


@pytest.mark.parametrize("x", [float("nan"), float("inf"), float("-inf"), "NaN", -11, None, "wide"])
def test_nan_and_infinity_are_rejected(x: object) -> None:
    with pytest.raises(ValidationError):
        Point.model_validate({"x": x})
    with pytest.raises(ValidationError):
        Point.model_validate_json('{"x": NaN}')


def test_values_are_immutable_and_reject_unknown_fields() -> None:
    point = Point(x=1)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(point, "x", 2)  # noqa: B010 - the type checker refuses the plain way
    with pytest.raises(ValidationError, match="Extra inputs"):
        Point.model_validate({"x": 1, "y": 2})
    assert point == Point(x=1)
    assert hash(point) == hash(Point(x=1))


def test_actions_of_checks_survive_a_reader_that_ignores_unknown_fields() -> None:
    policy = ScreeningPolicy.model_validate({"harmful": "report", "reject_above": 0.5}, extra="ignore")
    assert (policy.actions["harmful"], policy.actions["secrets"], policy.reject_above) == ("report", "drop", 0.5)
    assert ScreeningPolicy.model_validate_json(policy.model_dump_json(), extra="ignore") == policy
