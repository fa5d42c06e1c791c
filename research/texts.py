"""Every text that users read, in one file, so that one person can read them in one sitting: `make texts`.

Covers: the API's descriptions, the command line's help, report templates, and every sentence in the code that may end
up in an error, an event, a report, a card or a log. Not here: the docs, and words that are sent to models.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from api.main import create_app
from core.config import Settings

ROOT = Path(__file__).parents[1]
_FOLDERS = ("api", "worker", "core", "securetune")
_FOR_MODELS = ("core/attacks/families/", "core/judges/rubric.py", "core/judges/strongreject.py", "core/judges/text.py")
_COMMANDS = "", "up", "demo", "migrate", "verify", "key", "key create", "key list", "key revoke", "key rotate-signing"
_FEWEST_WORDS = 3
_METHODS = ("get", "put", "post", "delete", "patch", "head")


def main() -> None:
    """Write all texts to standard output."""
    for title, lines in (
        ("API", _api_texts()),
        ("COMMAND LINE", _help_texts()),
        ("REPORT TEMPLATES", _template_texts()),
        ("SENTENCES IN THE CODE", _code_texts()),
    ):
        print(f"\n{'=' * 100}\n{title}\n{'=' * 100}")
        for line in lines:
            print(line)


def _api_texts() -> Iterator[str]:
    nowhere = SecretStr("postgresql://localhost/nothing"), SecretStr("redis://localhost")  # nothing is connected to
    with tempfile.TemporaryDirectory() as state:
        settings = Settings(database_url=nowhere[0], redis_url=nowhere[1], state=Path(state))
        document = create_app(settings).openapi()
    yield document["info"]["description"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                yield f"\n{method.upper()} {path}: {operation['summary']}\n    {operation.get('description', '')}"
                for parameter in operation.get("parameters", ()):
                    yield f"    {parameter['name']}: {parameter.get('description', '(none)')}"
                for status, reply in operation.get("responses", {}).items():
                    yield f"    {status}: {reply['description']}"
    for name, schema in document["components"]["schemas"].items():
        yield f"\n{name}: {schema.get('description', '')}"
        for field, about in schema.get("properties", {}).items():
            yield f"    {field}: {' '.join(about.get('description', '(none)').split())}"


def _help_texts() -> Iterator[str]:
    for command in _COMMANDS:
        yield subprocess.run(
            [sys.executable, "-m", "securetune.cli.main", *command.split(), "--help"],
            capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "140", "NO_COLOR": "1"},
        ).stdout  # fmt: skip


def _template_texts() -> Iterator[str]:
    for path in sorted((ROOT / "core" / "reports").rglob("*.html")):
        plain = re.sub(r"<style.*?</style>|\{#.*?#\}|<[^>]+>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        yield f"\n{path.relative_to(ROOT)}"
        yield from (f"    {line.strip()}" for line in plain.splitlines() if line.strip())


def _code_texts() -> Iterator[str]:
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(_FOR_MODELS):
                found = list(_sentences(ast.parse(path.read_text(encoding="utf-8"))))
                if found:
                    yield f"\n{name}"
                    yield from (f"  {line:4} {text}" for line, text in found)


def _sentences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants of some words, with `{...}` for what f-strings fill in; no docstrings."""
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    found = {
        node.lineno: text
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in skipped and (text := _text(node))
    }
    yield from sorted(
        (line, text)
        for line, text in found.items()
        if len(re.findall(r"[A-Za-z]{2,}", text)) >= _FEWEST_WORDS and " " in text
    )


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    )


if __name__ == "__main__":
    main()
