"""The public keys that reports are signed with. Not here: signing (the worker), verifying (core.signing, the CLI)."""

from fastapi import APIRouter

from api.deps import PartsDep
from core.schemas.signing import TrustedKeys
from core.signing import SigningKeys

router = APIRouter(prefix="/signing-keys", tags=["signing keys"])


@router.get("", summary="List the signing keys", response_description="All of them")
def show(parts: PartsDep) -> TrustedKeys:
    """Every public key that ever signed a report here, retired ones too: `securetune verify --keys` takes this answer.

    No API key is needed: whoever is handed a report may check it. Empty before the first worker has started.
    """
    return SigningKeys(parts.settings.signing, parts.settings.signing_key).trusted()
