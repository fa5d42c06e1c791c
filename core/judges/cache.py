"""Judgements that are known from before, by what was judged and by whom.

Only what was decided is kept. Judgements of any job and any arm are found again: nothing of either is in the key. A
file that is cut off or holds something else counts as not there. Not here: which judges keep theirs (model).
"""

import json
from hashlib import sha256

from core.errors import NotFound
from core.judges.interface import Case, Finding
from core.schemas.evaluation import Judgement
from core.storage.store import ArtifactStore


class JudgementCache:
    """Judgements in the artifact store, one small file each, below `shared/judgements`."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def get(self, identity: str, case: Case) -> Finding | None:
        """What this judge has found of this case before."""
        try:
            data = self._store.path(_key(identity, case)).read_bytes()
            kept = Judgement.model_validate_json(data)
        except (NotFound, OSError, ValueError):  # none; gone just now; no judgement
            return None
        found = Finding(kept.verdict, kept.reason, kept.harmfulness, kept.score)
        return found if found.decided else None

    def put(self, identity: str, case: Case, judgement: Judgement) -> None:
        """Keep a judgement that is decided.

        Raises:
            StorageFull: there is no room.
        """
        data = judgement.model_dump_json().encode()
        self._store.put(_key(identity, case), data, name="judgement.json", media_type="application/json", gated=False)


def _key(identity: str, case: Case) -> str:
    digest = sha256(json.dumps([identity, case.behaviour, case.answer, case.safe]).encode()).hexdigest()
    return f"shared/judgements/{digest[:2]}/{digest}.json"
