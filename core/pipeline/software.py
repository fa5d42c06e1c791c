"""What every figure hangs on besides model and data: the versions of the libraries, and the code that measures.

Not here: the digest of a stage's inputs, which this is a part of (core.pipeline.stages).
"""

from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "scikit-learn")
_EXTRAS = ("lm_eval", "vllm", "bitsandbytes")
"""Named where they are installed."""
_CODE = Path(__file__).parents[1]
_KINDS = {".py", ".json"}


@cache
def software() -> dict[str, str]:
    """Versions by name, as a report states them.

    securetune's own ends with a digest of its code: in a checkout that moves on while the version stands still, and a
    stored figure of other rules or prompts must not be taken for one of these.
    """
    own = f"{version('securetune')}+{code_digest(_CODE)[:12]}"
    there = (*_LIBRARIES, *(name for name in _EXTRAS if find_spec(name) is not None))
    return {"securetune": own} | {name: version(name) for name in there}


def code_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the code and data files below `folder`, in hex."""
    whole = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _KINDS):
        content = sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()
