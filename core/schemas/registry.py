"""Extension points of the schemas: which classes are accepted in one place of a request, a policy or a report.

A class is accepted once code has registered it; a request cannot register one. So an attack, a judge, a safeguard or a
screening check is added without editing a union. Covers: validation, serialization and JSON schema of registered
classes. Not here: what the classes do (core.judges, core.attacks, core.safeguards, core.screening).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Options = TypeVar("Options", bound=BaseModel)
Registered = TypeVar("Registered", bound=type[BaseModel])


class Registry(Generic[Options]):
    """Classes by name. `Annotated[Base, registry]` is a pydantic type: a union discriminated by the field `tag`."""

    def __init__(self, tag: str) -> None:
        """`tag` is the field whose `Literal` values name the class, such as `kind`."""
        self.tag = tag
        self._classes: dict[str, type[Options]] = {}

    def register(self, options: Registered) -> Registered:
        """Accept a class under each value of its tag; usable as a class decorator.

        Raises:
            ValueError: another class has this name already.
        """
        for name in self._names_of(options):
            if self._classes.setdefault(name, cast(type[Options], options)) is not options:
                raise ValueError(f"{name!r} is already registered: choose another {self.tag}")
        return options

    def unregister(self, options: type[BaseModel]) -> None:
        """Stop accepting a class. For tests, which leave the process as they found it."""
        for name in self._names_of(options):
            del self._classes[name]

    def _names_of(self, options: type[BaseModel]) -> tuple[str, ...]:
        """The values of a class's tag, in the order in which its `Literal` lists them."""
        return get_args(options.model_fields[self.tag].annotation)

    def __iter__(self) -> Iterator[str]:
        """Registered names, in the order of registration."""
        return iter(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> type[Options]:
        return self._classes[name]

    def __get_pydantic_core_schema__(self, _source: type[Any], _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(dump_model, info_arg=True)
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schemas = {options: handler(named_schema(options)) for options in dict.fromkeys(self._classes.values())}
        mapping = {name: schemas[options].get("$ref", "") for name, options in self._classes.items()}
        return {"oneOf": list(schemas.values()), "discriminator": {"propertyName": self.tag, "mapping": mapping}}

    def validate(self, value: object) -> Options:
        """Validate an object as the class that its tag names; an instance of a registered class is unchanged."""
        if isinstance(value, tuple(self._classes.values())):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("model_type", "Input should be an object with the field {tag}", {"tag": self.tag})
        name = value.get(self.tag)
        options = self._classes.get(name) if isinstance(name, str) else None
        if options is None:
            raise PydanticCustomError(
                "union_tag_invalid",
                "Input tag '{name}' found using '{tag}' does not match any of the expected tags: {names}",
                {"name": name, "tag": self.tag, "names": ", ".join(f"'{each}'" for each in self._classes)},
            )
        return options.model_validate(value)


def named_schema(options: type[BaseModel]) -> CoreSchema:
    """A class's schema under a reference, so that a JSON schema defines it once instead of repeating it."""
    whole = options.__pydantic_core_schema__
    inner, others = (whole["schema"], whole["definitions"]) if whole["type"] == "definitions" else (whole, [])
    if inner["type"] == "definition-ref":
        return whole
    ref = f"{options.__module__}.{options.__qualname__}:{id(options)}"
    named = cast(CoreSchema, {**inner, "ref": ref})
    return core_schema.definitions_schema(core_schema.definition_reference_schema(ref), [*others, named])


def dump_model(value: BaseModel, info: core_schema.SerializationInfo) -> dict[str, Any]:
    """Serialize a model as pydantic would serialize it as a field of the model that is being serialized."""
    return value.model_dump(
        mode=info.mode, by_alias=info.by_alias, exclude_unset=info.exclude_unset, exclude_none=info.exclude_none
    )
