"""Which conversations can be trained on with the chat templates of public models.

The templates are files of the packages trl and axolotl, which are not imported: `pip install --no-deps trl axolotl`.
Prints a table in Markdown, which docs/chat-templates.md shows. Not here: whether the right tokens are trained on
(tests/core/data/test_turns.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from transformers import PreTrainedTokenizerBase

from core.catalog import TESTBED
from core.data.turns import ChatTemplate, TrainedTurn, UnsupportedTurns
from core.lm.files import fetch
from core.lm.reading import read_config
from core.lm.tokenizer import load_tokenizer
from core.schemas.data import Message, ToolCall

PACKAGES = {"trl": "chat_templates", "axolotl": "utils/chat_templates/templates"}
"""Folder of the templates in each package."""
_BARS = "|\N{FULLWIDTH VERTICAL LINE}"
_CONTROL = re.compile(rf"<[{_BARS}][^{_BARS}<>\n']{{1,40}}[{_BARS}]>|<(?:turn\||\|turn|\w+_of_turn)>")


def _turns(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(texts))


def _think(turns: Sequence[Message], *thoughts: str) -> tuple[Message, ...]:
    found = iter(thoughts)
    return tuple(
        turn.model_copy(update={"thinking": next(found)}) if turn.role == "assistant" else turn for turn in turns
    )


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_forecast",
        "description": "Forecast for a place",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The place"},
                "days": {"type": "integer", "description": "Number of days"},
            },
            "required": ["city"],
        },
    },
}
_CALL = ToolCall(name="get_forecast", arguments={"city": 'Paris "west"', "days": 37}, id="call12345")
_SEVERAL = _turns("Hi", "Good day", "More?", "  Yes.\n")
CONVERSATIONS: Mapping[str, tuple[Message, ...]] = {
    "one turn": _turns("Hi there", "  Good day\n"),
    "several turns": _SEVERAL,
    "system": (Message(role="system", content="Be brief."), *_SEVERAL),
    "tools": (
        Message(role="user", content="Weather in Paris?"),
        Message(role="assistant", content="", tool_calls=(_CALL,)),
        Message(role="tool", content="eighteen degrees", name="get_forecast", tool_call_id="call12345"),
        Message(role="assistant", content="It is mild."),
    ),
    "thinking": _think(_SEVERAL, "Greet.", "Hm."),
}


@dataclass(frozen=True)
class Template:
    """One published template."""

    package: str
    path: Path

    @property
    def name(self) -> str:
        """Package and file."""
        return f"{self.package}/{self.path.stem}"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """A small tokenizer with this template, and with its control tokens as special tokens."""
        folder = fetch(TESTBED)
        tokenizer = load_tokenizer(TESTBED, folder, read_config(TESTBED, folder))
        tokenizer.add_special_tokens({"bos_token": "<bos>"})
        template = self.path.read_text(encoding="utf-8")
        tokenizer.add_tokens(sorted(set(_CONTROL.findall(template))), special_tokens=True)
        tokenizer.chat_template = template
        return tokenizer


def published() -> list[Template]:
    """The templates of the packages that are installed."""
    found: list[Template] = []
    for package, folder in PACKAGES.items():
        spec = find_spec(package)
        if spec is not None and spec.origin:
            found += [Template(package, path) for path in sorted((Path(spec.origin).parent / folder).glob("*.jinja"))]
    return found


def split(tokenizer: PreTrainedTokenizerBase, kind: str) -> list[list[TrainedTurn]] | str:
    """The trained turns of a conversation by row, or why the template cannot express it."""
    tools = (TOOL,) if kind == "tools" else ()
    try:
        return ChatTemplate(tokenizer).split_rows(CONVERSATIONS[kind], tools)
    except UnsupportedTurns as error:
        return str(error)


def table(templates: Sequence[Template]) -> str:
    """A line for each template and a column for each conversation, in Markdown."""
    lines = [f"| template | {' | '.join(CONVERSATIONS)} |", f"|---|{'---|' * len(CONVERSATIONS)}"]
    for template in templates:
        tokenizer = template.tokenizer()
        cells = [_cell(split(tokenizer, kind)) for kind in CONVERSATIONS]
        lines.append(f"| {template.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: list[list[TrainedTurn]] | str) -> str:
    if isinstance(found, str):
        return "rejected"
    return "yes" if len(found) == 1 else f"{len(found)} rows"


def main() -> None:
    """Print the table."""
    templates = published()
    if not templates:
        raise SystemExit("Neither trl nor axolotl is installed: pip install --no-deps trl axolotl")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES if find_spec(package)))
    print(table(templates))


if __name__ == "__main__":
    typer.run(main)
