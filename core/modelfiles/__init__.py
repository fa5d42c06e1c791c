"""The files of a model, checked without loading it: can this folder be tuned, and if not, why not and what helps?

Only JSON files and the headers of safetensors and GGUF files are read, with limits on their size, so the API can check
a model when a job is ordered. Every check returns a `Problem` with a stable code, and no message contains a path of the
server. docs/models.md lists the codes. Not here: the server's list (core.catalog), what only loaded weights show
(core.lm.weights), the tokenizer as it behaves (core.lm.tokenizer).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from core.errors import InvalidModel
from core.modelfiles.config import check_config
from core.modelfiles.folder import check_folder
from core.modelfiles.gguf import check_gguf
from core.modelfiles.reading import CONFIG_LIMIT, Problem, read_object
from core.modelfiles.tokens import Token, check_tokens, find_rowless, rowless_problem
from core.modelfiles.weights import check_tensors, find_weights, read_weights

__all__ = ["Token", "check_file", "check_files", "find_rowless", "find_weights", "read_weights", "rowless_problem"]


def check_files(name: str, folder: Path, *, tokenizer: bool = True) -> None:
    """Reject a model whose files are incomplete, contradict each other, could run code, or are not a model that can be
    tuned. `name` is the model's name in messages. Without `tokenizer`, only its weights are used.

    Raises:
        InvalidModel: a code of docs/models.md.
    """
    problem = _find_problem(folder, _fingerprint(folder), tokenizer)
    if problem is not None:
        raise InvalidModel(f"The base model {name!r} {problem.text}", code=problem.code, param="base_model")


def check_file(name: str, paths: Sequence[Path], *, tokenizer: bool = True, own_template: bool = True) -> None:
    """Reject a GGUF file, in its parts in order, that cannot be converted. `name` is the model's name in messages.
    Without `tokenizer`, only its weights are used; `own_template`: it must have a chat template.

    Raises:
        InvalidModel: a code of docs/models.md.
    """
    problem = _find_file_problem(tuple(paths), _state(paths), tokenizer, own_template)
    if problem is not None:
        raise InvalidModel(f"The base model {name!r} {problem.text}", code=problem.code, param="base_model")


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Changes whenever a file of the folder does: name, size, time and inode of each."""
    try:
        return tuple(sorted(_state(folder.iterdir())))
    except OSError:
        return ()


def _state(paths: Iterable[Path]) -> tuple[tuple[str, int, int, int], ...]:
    found: list[tuple[str, int, int, int]] = []
    for path in paths:
        if path.exists():
            status = path.stat()
            found.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
        else:
            found.append((path.name, -1, -1, -1))
    return tuple(found)


@lru_cache(maxsize=128)  # the list of models is requested often, and a large vocabulary takes a second to parse
def _find_problem(folder: Path, _version: tuple[tuple[str, int, int, int], ...], tokenizer: bool) -> Problem | None:
    try:
        return _check(folder, tokenizer=tokenizer)
    except OSError as error:
        return _unopened(error)


@lru_cache(maxsize=128)  # the metadata of a large vocabulary takes a third of a second
def _find_file_problem(
    paths: tuple[Path, ...], _version: tuple[tuple[str, int, int, int], ...], tokenizer: bool, own_template: bool
) -> Problem | None:
    try:
        return check_gguf(paths, tokenizer=tokenizer, own_template=own_template)
    except FileNotFoundError as error:
        lacking = Path(str(error.filename)).name
        return Problem("model_missing", f"has no file {lacking}. Copy it to its place, or correct the server's list.")
    except OSError as error:
        return _unopened(error)


def _unopened(error: OSError) -> Problem:
    name = Path(str(error.filename or "file")).name
    return Problem("model_unreadable", f"has a {name} that cannot be opened ({error.strerror}). Check its permissions.")


def _check(folder: Path, *, tokenizer: bool) -> Problem | None:
    if problem := check_folder(folder, tokenizer=tokenizer):
        return problem
    config = read_object(folder / "config.json", CONFIG_LIMIT)
    problem = config if isinstance(config, Problem) else check_config(config)
    if isinstance(config, Problem) or problem:
        return problem
    tensors = read_weights(folder)
    if isinstance(tensors, Problem):
        return tensors
    problem = check_tensors(config, tensors)
    return problem or (check_tokens(folder, config, tensors) if tokenizer else None)
