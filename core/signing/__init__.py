"""Signed reports: an in-toto statement in a DSSE envelope, signed with Ed25519 and verified offline.

Covers: the service's keys, the envelope, the statement, comparing files with it. Not here: when a report is signed
(worker), the output of `securetune verify` (securetune.cli.verify), the vocabulary (core.schemas.signing).
"""

from core.signing.envelope import MAX_BYTES
from core.signing.files import check_folder, check_path
from core.signing.keys import KEYS_FILE, Signer, SigningKeys, read_keys
from core.signing.report import SIGNED_REPORT, sign_report, verify

__all__ = [
    "KEYS_FILE",
    "MAX_BYTES",
    "SIGNED_REPORT",
    "Signer",
    "SigningKeys",
    "check_folder",
    "check_path",
    "read_keys",
    "sign_report",
    "verify",
]
