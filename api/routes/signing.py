"""The public keys that verify signed reports. Not here: signing (worker), verifying (core.signing)."""

from fastapi import APIRouter

from api.deps import PartsDep
from core.schemas.signing import TrustedKeys
from core.signing import SigningKeys

router = APIRouter(prefix="/signing-keys", tags=["signing keys"])


@router.get("", summary="List the signing keys", response_description="All keys, retired ones included")
def show(parts: PartsDep) -> TrustedKeys:
    """Every public key that has signed reports of this service. `securetune verify --keys` accepts this response.

    No API key is needed, so that everybody who gets a report can verify it. Empty until a worker has started.
    """
    return SigningKeys(parts.settings.signing, parts.settings.signing_key).trusted()
