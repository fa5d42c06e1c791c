"""Jobs on files as they are found, through the API of a whole service: tool calls of ShareGPT, a German spreadsheet."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.catalog import TESTBED
from core.lm.files import fetch
from core.schemas.preview import PreviewRequest
from securetune import SecureTune
from securetune.local.running import running

pytestmark = pytest.mark.slow
TOOL_TEMPLATE = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}CALL {{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TINY: dict[str, Any] = {
    "training": {"steps": 2, "batch_size": 4},
    "strategy": {"kind": "uniform"},
    "quality": {"max_rows": 4, "max_answers": 1, "max_new_tokens": 8},
    "security": {"attacks": ["direct"], "max_prompts": 8, "max_new_tokens": 8, "measure_noise": False},
}
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a place",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CITIES = ("Paris", "Oslo", "Rome", "Bonn", "Lyon", "Kiel", "Graz", "Bern", "Cork", "Bari", "Nice", "Gent")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureTune]:
    """A service whose list has the testbed with a chat template that has a place for tools."""
    folder = tmp_path_factory.mktemp("found")
    model = shutil.copytree(fetch(TESTBED), folder / "caller")
    (model / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    listed = folder / "models.toml"
    listed.write_text('[models.caller]\nsource = { kind = "folder", path = "caller" }\nlearning_rate = 4e-3\n')
    with (
        running(folder / "state", {"SECURETUNE_MODELS": str(listed)}) as address,
        SecureTune(address.address, address.api_key) as client,
    ):
        yield client


def train(service: SecureTune, model: str, dataset: str) -> None:
    *_, job = service.watch(service.create_job({"base_model": model, "dataset": dataset, **TINY}).id)
    assert job.status == "succeeded", job.error


def trained_parts(service: SecureTune, model: str, dataset: str) -> list[str]:
    """What the preview marks, by row."""
    rows = service.preview(dataset, PreviewRequest(model=model, rows=50)).rows
    return ["".join(token.text for token in row.tokens if token.trained) for row in rows]


def test_a_sharegpt_file_with_tool_calls(service: SecureTune, tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"Weather in {city}?"},
                {"from": "function_call", "value": json.dumps({"name": "get_weather", "arguments": {"city": city}})},
                {"from": "observation", "value": f"18 degrees in {city}"},
                {"from": "gpt", "value": "It is mild."},
            ],
            "tools": json.dumps([WEATHER]),
        }
        for city in CITIES
    ]
    path.write_text(json.dumps(rows))
    dataset = service.upload_dataset(path)
    assert (dataset.summary.row_format, dataset.summary.rows, dataset.summary.ignored) == ("sharegpt", 12, {})
    parts = trained_parts(service, "caller", dataset.id)
    assert parts == [f'CALL get_weather {{"city": "{city}"}}<|end|>It is mild.<|end|>' for city in CITIES]
    rejected = service.preview(dataset.id, PreviewRequest(model="testbed")).rejected
    assert "has no place for tool calls" in rejected[0].message
    train(service, "caller", dataset.id)


def test_a_spreadsheet_of_a_german_excel(service: SecureTune, tmp_path: Path) -> None:
    path = tmp_path / "Mappe1.csv"
    lines = [f'"Was ist {n},5 mal 2?";"Das ist {2 * n + 1}; schön, oder?\nJa."' for n in range(12)]
    text = "\n".join(["Prompt;Completion", *lines, ";", ""]).replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-8-sig"))  # Excel: CSV UTF-8
    dataset = service.upload_dataset(path)
    summary = dataset.summary
    assert (summary.file_format, summary.delimiter, summary.row_format) == ("csv", ";", "prompt_completion")
    answers = [f"Das ist {2 * n + 1}; schön, oder?\r\nJa.<|end|>" for n in range(12)]
    assert trained_parts(service, "testbed", dataset.id) == answers
    train(service, "testbed", dataset.id)
