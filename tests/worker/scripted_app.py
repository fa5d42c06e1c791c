"""The real worker with the scripted training process: `python -m celery -A tests.worker.scripted_app worker`."""

import sys

from core.config import settings
from worker.service import create

app = create(settings(), command=(sys.executable, "-m", "tests.worker.scripted"))
