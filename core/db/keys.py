"""API keys: made, checked in constant time, revoked.

A key reads `st_<id>_<secret>`. The secret has 256 random bits, so one round of SHA-256 is enough to store it.
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import ApiKey
from core.errors import NotAuthenticated, NotFound

_FORM = re.compile(r"st_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY = sha256(b"").hexdigest()


def create(session: Session, name: str) -> str:
    """Make a key and return it; this is the only time its secret is seen."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    session.add(ApiKey(id=key_id, name=name, secret_hash=sha256(secret.encode()).hexdigest()))
    session.flush()
    return f"st_{key_id}_{secret}"


def check(session: Session, key: str) -> ApiKey:
    """The row of a valid key.

    Raises:
        NotAuthenticated: the key is malformed, unknown, wrong or revoked; the caller cannot tell which.
    """
    match = _FORM.fullmatch(key)
    row = session.get(ApiKey, match[1]) if match else None
    given = sha256(match[2].encode() if match else b"?").hexdigest()
    same = hmac.compare_digest(given, row.secret_hash if row else _NOBODY)
    if row is None or not same or row.revoked_at is not None:
        raise NotAuthenticated("This API key is not valid. Send `Authorization: Bearer <key>` with one that is.")
    return row


def everyone(session: Session) -> Sequence[ApiKey]:
    """All keys, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def revoke(session: Session, key_id: str) -> None:
    """End a key's life at once. Revoking it again changes nothing.

    Raises:
        NotFound: there is no key of this id.
    """
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"There is no API key {key_id!r}.", param="key_id")
    row.revoked_at = row.revoked_at or session.scalar(select(func.now()))
