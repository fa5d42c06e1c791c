"""Queries on uploaded sets of prompts. Not here: those of the server's list (core.catalog)."""

from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import PromptSet
from core.errors import InvalidInput, NotFound
from core.schemas.job import PromptFile, UploadedFile
from core.schemas.prompts import ChosenPrompts, Layout, PromptFileSummary, PromptSource, Use, is_uploaded

_PARAM = "security.prompts"


def identity(digest: str, layout: Layout) -> str:
    """The id of these bytes read in this layout."""
    return "ps_" + sha256(f"{digest}\n{layout}".encode()).hexdigest()[:24]


def add(
    session: Session, *, name: str, digest: str, size: int, key: str, summary: PromptFileSummary
) -> tuple[PromptSet, bool]:
    """The set's row, and whether it is new; the same upload again finds the first one's row."""
    set_id = identity(digest, summary.layout)
    inserted = session.execute(
        insert(PromptSet)
        .values(
            id=set_id,
            name=name,
            layout=summary.layout,
            sha256=digest,
            bytes=size,
            key=key,
            summary=summary.model_dump(),
        )
        .on_conflict_do_nothing()
        .returning(PromptSet.id)
    ).first()
    return get(session, set_id), inserted is not None


def get(session: Session, set_id: str, *, param: str | None = None) -> PromptSet:
    """One uploaded set.

    Raises:
        NotFound: there is none of this id.
    """
    row = session.get(PromptSet, set_id)
    if row is None:
        raise NotFound(f"There is no prompt set {set_id!r}: upload it with POST /prompt-sets.", param=param)
    return row


def page(session: Session, *, limit: int, after: str | None = None) -> tuple[Sequence[PromptSet], bool]:
    """Uploaded sets, newest first, and whether there are more. `after` is the id of the last one of the page before.

    Raises:
        InvalidInput: code `unknown_cursor`, when `after` is no uploaded set.
    """
    query = select(PromptSet).order_by(PromptSet.created_at.desc(), PromptSet.id.desc()).limit(limit + 1)
    if after is not None:
        last = session.get(PromptSet, after)
        if last is None:
            raise InvalidInput(f"`after` names no prompt set: {after!r}.", code="unknown_cursor", param="after")
        query = query.where(tuple_(PromptSet.created_at, PromptSet.id) < tuple_(last.created_at, last.id))
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def files(session: Session, prompts: PromptSource) -> dict[Use, PromptFile]:
    """Where the uploaded sets are that an order names; those of the server's list are left out.

    Raises:
        NotFound: there is no such set.
        InvalidInput: code `invalid_prompt_set`; it has no prompt of this use.
    """
    named = prompts.named if isinstance(prompts, ChosenPrompts) else {}
    return {use: _file(session, name, use) for use, name in named.items() if is_uploaded(name)}


def _file(session: Session, set_id: str, use: Use) -> PromptFile:
    row = get(session, set_id, param=_PARAM)
    summary = PromptFileSummary.model_validate(row.summary)
    if {"harmful": summary.harmful, "safe": summary.safe}[use] == 0:
        raise InvalidInput(
            f"{_PARAM}: the set {set_id!r} has no {use} prompts.", code="invalid_prompt_set", param=_PARAM
        )
    source = UploadedFile(key=row.key, sha256=row.sha256)
    return PromptFile(name=f"{row.name} ({row.id})", layout=row.layout, source=source)
