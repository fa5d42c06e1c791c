"""The training process: `python -m worker.process`, started by worker.child and by nobody else.

It gets everything hot first, waits for one order, does it, says how it ended, and is gone. It reaches no database and
no queue. Not here: the work (worker.attempt).
"""

import logging
import os
import sys

from worker.link import Link
from worker.protocol import Ready


def main() -> None:
    """Serve one order."""
    link = Link.standard()  # before the imports below: it ends this process when the worker goes away
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each call to a judge says nothing
    from worker import attempt  # noqa: PLC0415 - takes seconds

    attempt.warm_up()
    link.say(Ready())
    link.say(attempt.run(link.order(), link.emit))
    # Nothing that a library does at exit may turn a finished job into a crash or a hang.
    os._exit(0)


if __name__ == "__main__":
    main()
