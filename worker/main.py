"""The worker: `python -m celery -A worker.main worker --without-mingle --without-gossip --without-heartbeat`.

One thread a GPU slot (`--concurrency`, 1 by default); each job runs in a process of its own. Workers need not know of
each other, and one that does not look for others starts a second earlier: hence the three options.
Not here: the parts (worker.service).
"""

from core.config import settings
from core.errors import Unavailable
from worker.service import create

try:
    app = create(settings())
except Unavailable as error:
    raise SystemExit(f"securetune: {error.message}") from error
