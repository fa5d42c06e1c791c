"""Parses Dockerfile and docker-compose.yml for their tests, and lists the packages that pip would install.

Docker is not needed. Not here: the tests (tests/test_containers.py, tests/test_compose.py).
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, JsonValue

ROOT = Path(__file__).parents[1]
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<word>[^}]*))?\})")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword, its `--flags` and its arguments."""

    word: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments as a list, from their JSON form or split like a shell would."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)

    @property
    def pairs(self) -> dict[str, str]:
        """Names and values of ENV and ARG."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}


@dataclass(frozen=True)
class Stage:
    """One stage: the instructions that it inherits from its parent stage, and its own."""

    name: str
    image: str
    inherited: tuple[Instruction, ...]
    own: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """Return its instructions with this keyword, inherited ones first."""
        return [instruction for instruction in (*self.inherited, *self.own) if instruction.word == word]

    def last(self, word: str) -> Instruction:
        """Return its last instruction with this keyword, which replaces earlier ones."""
        return self.all(word)[-1]

    def pairs(self, word: str) -> dict[str, str]:
        """Return names and values of every ENV or ARG."""
        return {name: value for instruction in self.all(word) for name, value in instruction.pairs.items()}

    @property
    def sources(self) -> dict[str, str]:
        """Paths that are copied from the repository, with their destinations."""
        copies = [instruction.words for instruction in self.all("COPY") if "from" not in instruction.flags]
        return {source: words[-1] for words in copies for source in words[:-1]}


def stages(path: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name. It must begin with FROM, and every stage must have a name."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, text = line.partition(" ")
        assert re.fullmatch("[A-Z]+", word), f"not an instruction: {line}"
        if word == "FROM":
            image, as_word, name = text.split()
            assert as_word == "AS", line
            parent = found.get(image)
            before = (*parent.inherited, *parent.own) if parent else ()
            current = found[name] = Stage(name, parent.image if parent else image, before)
            continue
        flags: dict[str, str] = {}
        while text.startswith("--"):
            flag, _, text = text.partition(" ")
            name, _, value = flag[2:].partition("=")
            flags[name] = value
        assert current is not None, f"before the first FROM: {line}"
        current.own.append(Instruction(word, flags, text.strip()))
    return found


class Build(BaseModel):
    """How an image is built."""

    context: str = "."
    target: str | None = None
    args: dict[str, str] = {}


class Health(BaseModel):
    """The health check of a container."""

    test: list[str] = []
    disable: bool = False


class Need(BaseModel):
    """The condition that another service must meet first."""

    condition: str


class Service(BaseModel):
    """The fields of a service that tests check."""

    image: str
    build: Build | None = None
    command: list[str] | None = None
    environment: dict[str, str | None] = {}
    volumes: list[str] = []
    tmpfs: list[str] = []
    ports: list[str] = []
    networks: list[str] = []
    depends_on: dict[str, Need] = {}
    healthcheck: Health | None = None
    restart: str = ""
    user: str = ""
    read_only: bool = False
    cap_drop: list[str] = []
    cap_add: list[str] = []
    privileged: bool = False
    security_opt: list[str] = []


class Compose(BaseModel):
    """A compose file."""

    services: dict[str, Service]
    volumes: dict[str, JsonValue] = {}
    networks: dict[str, JsonValue] = {}


class Unset(Exception):
    """A required variable is not set."""


def compose(name: str, env: Mapping[str, str]) -> Compose:
    """Parse a compose file and replace its variables.

    Raises:
        Unset: a required variable is missing; the message is the one in the file.
    """
    return Compose.model_validate(_interpolate_all(yaml.safe_load((ROOT / name).read_text()), env))


def _interpolate_all(node: JsonValue, env: Mapping[str, str]) -> JsonValue:
    match node:
        case str():
            return interpolate(node, env)
        case list():
            return [_interpolate_all(each, env) for each in node]
        case dict():
            return {key: _interpolate_all(each, env) for key, each in node.items()}
        case _:
            return node


def interpolate(text: str, env: Mapping[str, str]) -> str:
    """Replace `${NAME}`, `${NAME-default}`, `${NAME:-default}` and `${NAME:?message}` like compose does."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found, how = env.get(match["name"]), match["how"] or ""
        if found is not None and (found or not how.startswith(":")):
            return found
        if how.endswith("?"):
            raise Unset(f"{match['name']}: {match['word']}")
        return match["word"] or ""

    return _VARIABLE.sub(value, text)


def variables(name: str) -> dict[str, set[str]]:
    """Return every environment variable that a compose file uses, with the operators used: `:?`, `:-`, `-` or none."""
    found: dict[str, set[str]] = {}
    text = (ROOT / name).read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for match in _VARIABLE.finditer(code):
        if not match["escaped"]:
            found.setdefault(match["name"], set()).add(match["how"] or "")
    for service in Compose.model_validate(yaml.safe_load(text)).services.values():
        for variable, value in service.environment.items():
            if value is None:  # passed through if it is set
                found.setdefault(variable, set()).add("")
    return found


def heading(name: str) -> str:
    """Return the comment at the top of a file."""
    return re.split(r"\n(?!#)", (ROOT / name).read_text(), maxsplit=1)[0]


def distributions(requirements: Iterable[str]) -> set[str]:
    """Return the normalised names of the packages that pip would install; they have to be installed here."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in distribution(wanted.name).requires or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(need)
    return {name for name, _ in seen}
