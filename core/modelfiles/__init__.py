"""The files of a model, checked without loading it: can this folder be tuned, and if not, why not and what helps?

Only JSON files and the headers of safetensors files are read, with limits on their size, so the API can check a folder
when a job is ordered. Every check returns a `Problem` with a stable code, and no message contains a path of the server.
docs/models.md lists the codes. Not here: the server's list (core.catalog), what only loaded weights show
(core.lm.weights), the tokenizer as it behaves (core.lm.tokenizer).
"""

from functools import lru_cache
from pathlib import Path

from core.errors import InvalidModel
from core.modelfiles.config import check_config
from core.modelfiles.folder import check_folder
from core.modelfiles.reading import CONFIG_LIMIT, Problem, read_object
from core.modelfiles.tokens import Token, check_tokens, find_rowless, rowless_problem
from core.modelfiles.weights import check_tensors, find_weights, read_weights

__all__ = ["Token", "check_files", "find_rowless", "find_weights", "rowless_problem"]


def check_files(name: str, folder: Path, *, tokenizer: bool = True) -> None:
    """Reject a model whose files are incomplete, contradict each other, could run code, or are not a model that can be
    tuned. `name` is the model's name in messages. Without `tokenizer`, only its weights are used.

    Raises:
        InvalidModel: a code of docs/models.md.
    """
    problem = _find_problem(folder, _fingerprint(folder), tokenizer)
    if problem is not None:
        raise InvalidModel(f"The base model {name!r} {problem.text}", code=problem.code, param="base_model")


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Changes whenever a file of the folder does: name, size, time and inode of each."""
    found: list[tuple[str, int, int, int]] = []
    try:
        for path in folder.iterdir():
            if path.exists():
                status = path.stat()
                found.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
            else:
                found.append((path.name, -1, -1, -1))
    except OSError:
        return ()
    return tuple(sorted(found))


@lru_cache(maxsize=128)  # the list of models is requested often, and a large vocabulary takes a second to parse
def _find_problem(folder: Path, _version: tuple[tuple[str, int, int, int], ...], tokenizer: bool) -> Problem | None:
    try:
        return _check(folder, tokenizer=tokenizer)
    except OSError as error:
        name = Path(str(error.filename or "file")).name
        return Problem(
            "model_unreadable", f"has a {name} that cannot be opened ({error.strerror}). Check its permissions."
        )


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
