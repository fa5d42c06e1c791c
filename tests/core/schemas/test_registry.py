"""core.schemas.registry: a registered class is validated, serialized and documented like a member of a union."""

from collections.abc import Iterator
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from core.schemas.base import Frozen
from core.schemas.registry import Registry


class Base(Frozen):
    """What all have in common."""


SHAPES = Registry[Base]("kind")


class Nested(Frozen):
    """Something inside."""

    depth: int = 1


@SHAPES.register
class Circle(Base):
    """A circle."""

    kind: Literal["circle", "disc"] = "circle"
    """Kind."""
    radius: int = Field(default=1, ge=1)
    """How large."""
    inside: Nested = Nested()
    """What is in it."""


class Square(Base):
    """A square, registered by a test."""

    kind: Literal["square"] = "square"
    """Kind."""
    side: float = 1.0
    """How large."""

    @model_validator(mode="after")
    def _positive(self) -> "Square":
        if self.side <= 0:
            raise ValueError("side must be positive")
        return self


class Drawing(Frozen):
    """Where shapes stand."""

    shapes: tuple[Annotated[Base, SHAPES], ...] = (Circle(),)
    """Shapes."""


@pytest.fixture
def square() -> Iterator[type[Square]]:
    yield SHAPES.register(Square)
    SHAPES.unregister(Square)


def problems(value: object) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(value)
    return [(error["loc"], error["type"]) for error in caught.value.errors()]


def test_a_class_is_chosen_by_its_tag() -> None:
    drawing = Drawing.model_validate({"shapes": [{"kind": "disc", "radius": 2}, Circle(radius=3)]})
    assert drawing.shapes == (Circle(kind="disc", radius=2), Circle(radius=3))


def test_errors_have_the_location_that_a_union_member_would_have() -> None:
    assert problems({"shapes": [{"kind": "circle", "radius": 0, "inside": {"depth": "x"}}]}) == [
        (("shapes", 0, "radius"), "greater_than_equal"),
        (("shapes", 0, "inside", "depth"), "int_parsing"),
    ]


@pytest.mark.parametrize("value", [{"kind": "square"}, {"kind": 3}, {"radius": 1}])
def test_an_unregistered_tag_is_rejected(value: dict[str, object]) -> None:
    assert problems({"shapes": [value]}) == [(("shapes", 0), "union_tag_invalid")]


def test_only_objects_are_accepted() -> None:
    assert problems({"shapes": ["circle"]}) == [(("shapes", 0), "model_type")]


def test_existing_models_accept_a_class_that_is_registered_later(square: type[Square]) -> None:
    drawing = Drawing.model_validate({"shapes": [{"kind": "square", "side": 2}]})
    assert drawing.shapes == (square(side=2),)
    assert Drawing.model_validate_json(drawing.model_dump_json()) == drawing
    assert "Square" in Drawing.model_json_schema()["$defs"]


def test_the_schema_names_each_class_once_and_maps_every_tag() -> None:
    schema = Drawing.model_json_schema()
    assert set(schema["$defs"]) == {"Circle", "Nested"}
    assert schema["properties"]["shapes"]["items"]["discriminator"] == {
        "propertyName": "kind",
        "mapping": {"circle": "#/$defs/Circle", "disc": "#/$defs/Circle"},
    }


def test_a_name_is_registered_once(square: type[Square]) -> None:
    SHAPES.register(square)  # again is nothing new
    with pytest.raises(ValueError, match="already registered"):
        SHAPES.register(type("Other", (Square,), {}))
