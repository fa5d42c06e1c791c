"""Signed reports: Ed25519 over an in-toto statement in a DSSE envelope, verified offline.

Covers: the service's keys, the envelope, the statement, files held against it. Not here: when a job's report is signed
(worker), what the command line prints (securetune.cli.verify), the values (core.schemas.signing).
"""

from core.signing.envelope import MAX_BYTES
from core.signing.files import beside, named
from core.signing.keys import KEYS_FILE, Signer, SigningKeys, read_keys
from core.signing.report import SIGNED_REPORT, signed, verify

__all__ = [
    "KEYS_FILE",
    "MAX_BYTES",
    "SIGNED_REPORT",
    "Signer",
    "SigningKeys",
    "beside",
    "named",
    "read_keys",
    "signed",
    "verify",
]
