"""Digests of the inputs of stages, by which stored results are found.

The inputs include the code that computes a result: the source files that the stage uses, followed through their
imports. Docstrings and comments do not count, so correcting a text discards nothing. Not here: which inputs a stage has
(its own file), storing results (core.pipeline.stages).
"""

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pydantic import JsonValue
from typing_extensions import override

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "scikit-learn")
_OPTIONAL_LIBRARIES = ("lm_eval", "bitsandbytes")
_ROOT = Path(__file__).parents[2]
_NOT_DATA = {".py", ".pyc", ".pyi"}


def digest(inputs: Mapping[str, JsonValue]) -> str:
    """A short digest of JSON values; the order of keys does not matter."""
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]


@cache
def libraries() -> dict[str, str]:
    """Versions of the libraries that figures depend on; optional ones only if they are installed."""
    installed = (*_LIBRARIES, *(name for name in _OPTIONAL_LIBRARIES if find_spec(name) is not None))
    return {name: version(name) for name in installed}


@cache
def software() -> dict[str, str]:
    """Versions as a report states them. securetune's own ends with a digest of all code and data files in core, because
    a checkout changes while its version stays the same.
    """
    paths = [path.relative_to(_ROOT).with_suffix("") for path in (_ROOT / "core").rglob("*.py")]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return {"securetune": f"{version('securetune')}+{code_digest(modules)[:12]}"} | libraries()


@cache
def code_of(*used: Callable[..., object], caller: str) -> str:
    """Digest of the code behind functions and classes, and of the module `caller` that puts them together.

    The modules of `used` count with everything in core that they import, `caller` counts alone: it calls other stages
    too. A module outside core counts alone as well.
    """
    return code_digest([each.__module__ for each in used], alone=(caller,))


def code_digest(modules: Sequence[str], *, alone: Sequence[str] = (), root: Path = _ROOT) -> str:
    """SHA-256, in hex, over modules and all that they import from core, modules that count `alone`, and data files.

    Data files are the other files of the packages that are imported. `root` is the folder that contains core.
    """
    files = _imported(modules, root)
    files |= {name: path for name in alone if (path := _source_file(name, root))}
    lines = [f"{name} {_parse(path.read_bytes())[0]}" for name, path in files.items()]
    for package in {path.parent for path in files.values() if path.name == "__init__.py"}:
        lines += [
            f"{path.relative_to(root).as_posix()} {sha256(path.read_bytes()).hexdigest()}"
            for path in _data_files(package)
        ]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _imported(modules: Sequence[str], root: Path) -> dict[str, Path]:
    """Source files by module: these modules, the packages around them, and all that they import from core."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in found else _source_file(name, root)
        if path is None:
            continue
        found[name] = path
        waiting += _parse(path.read_bytes())[1]
        if "." in name and name.startswith("core."):
            waiting.append(name.rpartition(".")[0])
    return found


def _source_file(module: str, root: Path) -> Path | None:
    """The file of a module; None for a name that is not a module, such as a function."""
    if module != "core" and not module.startswith("core."):
        spec = find_spec(module)
        return Path(spec.origin) if spec and spec.origin else None
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((each for each in candidates if each.is_file()), None)


def _data_files(package: Path) -> Iterator[Path]:
    """Files of a package that are not code, also in its subfolders that are not packages."""
    for path in package.iterdir():
        if path.is_file() and path.suffix not in _NOT_DATA:
            yield path
        elif path.is_dir() and not (path / "__init__.py").exists():
            yield from _data_files(path)


@lru_cache(maxsize=1024)
def _parse(source: bytes) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's code without docstrings and comments, and the modules of core that it imports."""
    tree = ast.parse(source)
    imports = tuple(_imports(tree))
    return sha256(ast.dump(_WithoutDocstrings().visit(tree)).encode()).hexdigest(), imports


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes every statement that is only a string: docstrings of modules, functions, classes and attributes."""

    @override
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules in core; a name imported from a package may be one or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "core")
