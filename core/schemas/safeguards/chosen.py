"""The safeguards of one run: an object in JSON with the options of each by name.

Not here: the options.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from core.schemas.base import Frozen
from core.schemas.registry import dump_model
from core.schemas.safeguards.interface import Options, SafeguardOptions, accepted


class Safeguards:
    """The safeguards of one run, in the order in which they take effect.

    In JSON an object with the options of each safeguard by name; one that is missing or null is off. Immutable.
    """

    def __init__(self, *options: SafeguardOptions) -> None:
        """Raises ValueError if a safeguard is given twice."""
        order = accepted()
        if len({type(each) for each in options}) < len(options):
            raise ValueError("a safeguard is given twice: give each one once")
        self._options = tuple(sorted(options, key=lambda each: order.index(type(each))))

    def __iter__(self) -> Iterator[SafeguardOptions]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Safeguards) and self._options == other._options

    def __hash__(self) -> int:
        return hash(self._options)

    def __repr__(self) -> str:
        return f"Safeguards({', '.join(map(repr, self._options))})"

    def get(self, options: type[Options]) -> Options | None:
        """The options of one safeguard; None if it is off."""
        return next((each for each in self._options if isinstance(each, options)), None)

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles of the safeguards that are on."""
        return tuple(each.title for each in self._options)

    @property
    def serving_system_prompt(self) -> str | None:
        """The system prompt that the last safeguard with one requires; None if none requires one."""
        prompts = [each.serving_system_prompt for each in self._options]
        return next((prompt for prompt in reversed(prompts) if prompt is not None), None)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: type[Any], _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",
            serialization=core_schema.plain_serializer_function_ser_schema(cls._dump, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(_model_of(accepted()).__pydantic_core_schema__)

    @classmethod
    def _validate(cls, value: object) -> "Safeguards":
        if isinstance(value, Safeguards):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("model_type", "Input should be an object with one field for each safeguard")
        given = _model_of(accepted()).model_validate(value)
        return cls(*(options for _, options in given if options is not None))

    def _dump(self, info: core_schema.SerializationInfo) -> dict[str, Any]:
        return {each.name: dump_model(each, info) for each in self._options}


@cache
def _model_of(classes: tuple[type[SafeguardOptions], ...]) -> type[BaseModel]:
    """The JSON object of `Safeguards`: one optional field for each class, described by its first paragraph."""
    fields: dict[str, Any] = {}
    for each in classes:
        description = (each.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
        fields[each.name] = (each | None, Field(default=None, description=description))
    about = "Safeguards of one run. All are off by default, and any of them can be combined."
    return create_model("Safeguards", __base__=Frozen, __doc__=about, **fields)
