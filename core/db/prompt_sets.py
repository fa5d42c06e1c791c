"""Queries on uploaded prompt sets. Not here: sets of the server's list (core.catalog)."""

from hashlib import sha256

from sqlalchemy.orm import Session

from core.db.models import PromptSet
from core.errors import InvalidInput, NotFound
from core.schemas.job import PromptFile, UploadedFile
from core.schemas.prompts import ChosenPrompts, Layout, PromptFileSummary, PromptSource, Use, is_uploaded

_PARAM = "security.prompts"


def identity(digest: str, layout: Layout) -> str:
    """The id of a prompt set: a digest of its bytes and its layout."""
    return "ps_" + sha256(f"{digest}\n{layout}".encode()).hexdigest()[:24]


def get(session: Session, set_id: str, *, param: str | None = None) -> PromptSet:
    """One uploaded prompt set.

    Raises:
        NotFound: there is no prompt set with this id. `param` is the field that names it.
    """
    row = session.get(PromptSet, set_id)
    if row is None:
        raise NotFound(f"There is no prompt set {set_id!r}. Upload it with POST /prompt-sets.", param=param)
    return row


def files(session: Session, prompts: PromptSource) -> dict[Use, PromptFile]:
    """Files of the uploaded prompt sets that an order names, by use; listed sets are left out.

    Raises:
        NotFound: a set does not exist.
        InvalidInput: code `invalid_prompt_set`; a set has no prompts for its use.
    """
    named = prompts.named if isinstance(prompts, ChosenPrompts) else {}
    return {use: _file(session, name, use) for use, name in named.items() if is_uploaded(name)}


def _file(session: Session, set_id: str, use: Use) -> PromptFile:
    row = get(session, set_id, param=_PARAM)
    summary = PromptFileSummary.model_validate(row.summary)
    if {"harmful": summary.harmful, "safe": summary.safe}[use] == 0:
        raise InvalidInput(
            f"{_PARAM}: the prompt set {set_id!r} has no {use} prompts. Name another set.",
            code="invalid_prompt_set",
            param=_PARAM,
        )
    source = UploadedFile(key=row.key, sha256=row.sha256)
    return PromptFile(name=f"{row.name} ({row.id})", layout=row.layout, source=source)
