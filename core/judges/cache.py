"""Cached judgements, by what was judged and by which judge.

Only decided judgements are cached. They are shared by all jobs and runs, since the key names neither. A file that is
truncated or invalid counts as missing. Not here: which judges use the cache (model).
"""

import json
from dataclasses import dataclass
from hashlib import sha256

from core.errors import NotFound
from core.judges.interface import Case, Ruling
from core.schemas.evaluation import Judgement
from core.storage.store import ArtifactStore


@dataclass(frozen=True)
class JudgementCache:
    """Judgements in the artifact store, one small file each, below `shared/judgements`."""

    store: ArtifactStore

    def get(self, identity: str, case: Case) -> Ruling | None:
        """Look up the ruling of the judge with this identity on a case."""
        try:
            data = self.store.path(_key(identity, case)).read_bytes()
            cached = Judgement.model_validate_json(data)
        except (NotFound, OSError, ValueError):  # missing; deleted meanwhile; not a judgement
            return None
        ruling = Ruling(cached.verdict, cached.reason, cached.harmfulness, cached.score)
        return ruling if ruling.decided else None

    def put(self, identity: str, case: Case, judgement: Judgement) -> None:
        """Store a decided judgement.

        Raises:
            StorageFull: there is no room.
        """
        data = judgement.model_dump_json().encode()
        self.store.put(_key(identity, case), data, name="judgement.json", media_type="application/json", gated=False)


def _key(identity: str, case: Case) -> str:
    digest = sha256(json.dumps([identity, case.behaviour, case.answer, case.safe]).encode()).hexdigest()
    return f"shared/judgements/{digest[:2]}/{digest}.json"
