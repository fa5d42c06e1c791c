"""A process with a tokenizer: `python -m core.pipeline.tokenizer_process`, an order on stdin, an answer on stdout.

The API starts it, because the API has no tokenizers and must keep answering whatever a file or a chat template does.
Not here: starting it (api.tokenizers), what it computes (core.pipeline.tokenizer_orders).
"""

import logging
import os
import resource
import sys
from types import ModuleType
from typing import cast

from core.schemas.tokenizing import TOKENIZER_ORDER

_MAX_BYTES = 4 * 2**30
"""Largest amount of memory that the process may fill with data."""
_MAX_SECONDS = 120
"""Processor time after which the process ends, also if nobody waits for it any more."""


def main() -> None:
    """Answer one order."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_SECONDS, _MAX_SECONDS))
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to the log
    # Transformers would import torch where it is installed, for seconds, and use nothing of it.
    sys.modules["torch"] = cast("ModuleType", None)
    from core.pipeline.tokenizer_orders import answer  # noqa: PLC0415

    with out:
        out.write(answer(TOKENIZER_ORDER.validate_json(sys.stdin.buffer.read())).model_dump_json().encode())


if __name__ == "__main__":
    main()
