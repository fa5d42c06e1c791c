"""The OpenAPI document: a sentence for each field, an example for each body, every error documented."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api.main import create_app
from core.config import Settings
from core.schemas.job import JobSpec

Json = dict[str, Any]
METHODS = ("get", "post", "put", "delete", "patch")
OPEN = {"/healthz", "/readyz", "/signing-keys"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    state: Path = tmp_path_factory.mktemp("state")
    unused = SecretStr("postgresql:///unused"), SecretStr("redis://localhost:1")
    return create_app(Settings(database_url=unused[0], redis_url=unused[1], state=state)).openapi()


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield f"{method.upper()} {path}", methods[method]


def bodies(document: Json) -> Iterator[tuple[str, Json]]:
    for name, operation in operations(document):
        yield from ((f"{name} body {kind}", body) for kind, body in _content(operation.get("requestBody", {})))
        for status, response in operation["responses"].items():
            yield from ((f"{name} {status} {kind}", body) for kind, body in _content(response))


def _content(owner: Json) -> Iterator[tuple[str, Json]]:
    yield from owner.get("content", {}).items()


def test_every_field_has_a_sentence(document: Json) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description", "").endswith(".")
    ]
    bare += [name for name, schema in document["components"]["schemas"].items() if not schema.get("description")]
    assert bare == []


def test_every_field_is_described_in_four_words_at_least(document: Json) -> None:
    short = [
        f"{name}.{field}: {about.get('description', '')}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if len(about.get("description", "").split()) < 4
    ]
    assert short == []


@pytest.mark.parametrize("path", ["/datasets", "/prompt-sets"])
def test_every_form_field_has_a_sentence(document: Json, path: str) -> None:
    form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert all(about["description"].endswith(".") for about in form["properties"].values())


def test_every_parameter_and_operation_has_a_sentence(document: Json) -> None:
    bare: list[str] = []
    for name, operation in operations(document):
        bare += [name for part in ("summary", "description", "tags", "operationId") if not operation.get(part)]
        bare += [
            f"{name} {parameter['name']}"
            for parameter in operation.get("parameters", [])
            if not parameter.get("description", "").endswith(".")
        ]
    assert bare == []


def test_every_json_body_has_an_example(document: Json) -> None:
    found = list(bodies(document))
    binary = [
        name
        for name, body in found
        if body.get("schema", {}).get("format") == "binary" and "200 application/json" not in name
    ]
    bare = [name for name, body in found if "example" not in body and "examples" not in body and name not in binary]
    assert bare == []
    assert len(found) > 60


def test_report_and_map_are_described_field_by_field(document: Json) -> None:
    def schema(path: str) -> Json:
        return document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]

    assert schema("/jobs/{job_id}/report") == {"$ref": "#/components/schemas/Report"}
    assert schema("/jobs/{job_id}/robustness")["items"] == {"$ref": "#/components/schemas/RobustnessResult"}


def test_examples_of_orders_are_orders(document: Json) -> None:
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    orders = [JobSpec.model_validate(example["value"]) for example in body["examples"].values()]
    assert len(orders) == 4


def test_every_error_has_the_one_shape(document: Json) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400":
                body = response["content"]["application/json"]
                assert body["schema"] == {"$ref": "#/components/schemas/ErrorReply"}, (name, status)
                assert {"message", "type", "code"} <= body["example"]["error"].keys(), (name, status)
    assert not [name for name in document["components"]["schemas"] if "ValidationError" in name]


def test_everything_but_health_asks_for_a_key(document: Json) -> None:
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    for name, operation in operations(document):
        asks = operation.get("security") == [{"api_key": []}]
        assert asks != (name.split()[1] in OPEN), name
        assert asks == ("401" in operation["responses"]), name


def test_every_reference_leads_somewhere(document: Json) -> None:
    schemas = document["components"]["schemas"]
    text = repr(document)
    used = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= schemas.keys()
