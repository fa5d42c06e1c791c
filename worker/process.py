"""The training process: `python -m worker.process`, started only by worker.child.

It imports everything, waits for one order, carries it out, reports how it ended, and exits. It can reach neither
database nor queue. Not here: the work (worker.attempt).
"""

import logging
import os
import sys

from worker.link import Link
from worker.protocol import Ready


def main() -> None:
    """Carry out one order."""
    link = Link.standard()  # before the imports below: it ends this process if the worker dies
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs a line per call to a judge
    from worker import attempt  # noqa: PLC0415 - takes seconds

    attempt.warm_up()
    link.send(Ready())
    link.send(attempt.run(link.order(), link.emit))
    # Exit handlers of libraries must not turn a finished job into a crash or a hang.
    os._exit(0)


if __name__ == "__main__":
    main()
