"""API keys: creating, checking in constant time, revoking.

A key is `st_<id>_<secret>`. The secret has 256 random bits, so one round of SHA-256 is enough to store it.
"""

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from hashlib import sha256

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import ApiKey
from core.errors import InvalidInput, NotAuthenticated, NotFound
from core.schemas.keys import DEFAULT_PROJECT, Caller, Right

_FORM = re.compile(r"st_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NOBODY = sha256(b"").hexdigest()


def create(session: Session, name: str, *, project: str = DEFAULT_PROJECT, rights: Iterable[Right] = ()) -> str:
    """Create a key and return it. The secret is not stored and cannot be shown again.

    Raises:
        InvalidInput: code `invalid_project`.
    """
    if not _PROJECT.fullmatch(project):
        raise InvalidInput(
            f"{project!r} is not a valid project name: use at most 64 lower-case letters, digits and hyphens.",
            code="invalid_project",
            param="project",
        )
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    digest = sha256(secret.encode()).hexdigest()
    session.add(ApiKey(id=key_id, name=name, secret_hash=digest, project=project, rights=sorted(set(rights))))
    session.flush()
    return f"st_{key_id}_{secret}"


def check(session: Session, key: str) -> Caller:
    """The holder of a key.

    Raises:
        NotAuthenticated: the key is malformed, unknown, wrong or revoked; the message does not tell which.
    """
    match = _FORM.fullmatch(key)
    row = session.get(ApiKey, match[1]) if match else None
    given = sha256(match[2].encode() if match else b"?").hexdigest()
    same = hmac.compare_digest(given, row.secret_hash if row else _NOBODY)
    if row is None or not same or row.revoked_at is not None:
        raise NotAuthenticated("This API key is not valid. Send a valid one as `Authorization: Bearer <key>`.")
    return Caller(key_id=row.id, name=row.name, project=row.project, rights=frozenset(row.rights))


def everyone(session: Session) -> Sequence[ApiKey]:
    """All keys, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def revoke(session: Session, key_id: str) -> None:
    """Revoke a key at once. Idempotent.

    Raises:
        NotFound: there is no key with this id.
    """
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"There is no API key {key_id!r}.", param="key_id")
    row.revoked_at = row.revoked_at or session.scalar(select(func.now()))
