"""The worker: `python -m celery -A worker.main worker --without-mingle --without-gossip --without-heartbeat`.

One thread per job (`--concurrency`, 1 by default); each job runs in its own process. Workers do not need to know each
other, and the three options let them start a second earlier. Not here: the parts (worker.service).
"""

from core.config import settings
from core.errors import Unavailable
from worker.service import create

try:
    app = create(settings())
except Unavailable as error:
    raise SystemExit(f"securetune: {error.message}") from error
