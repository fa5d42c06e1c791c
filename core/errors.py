"""Every error that a caller may see, drawn as a tree. Not here: HTTP statuses (api.errors).

    SecureTuneError
    ├── InvalidInput            the request is wrong; change it
    │   ├── InvalidDataset      an upload has invalid rows; carries their lines
    │   └── InvalidModel        the base model cannot be used
    ├── NotFound                there is no such object
    ├── NotAuthenticated        the API key is missing or not valid
    ├── Forbidden               the API key is valid but lacks a right
    │   └── Withheld            the gate withholds a file; carries its reasons
    ├── Conflict                the object is in the wrong state
    ├── TooLarge                a limit of the server is exceeded
    ├── Unavailable             a part of the service is down; try again
    │   └── StorageFull         the artifact store has no space left
    ├── TrainingFailed          the run cannot continue (exploding loss, no trainable row)
    └── Interrupted             the run was stopped from outside

Every error has a stable `code` and a message that says what to do, and can be pickled: a subclass must be callable with
the message alone.
"""

from core.schemas.data import RowError
from core.schemas.gate import GateReason


class SecureTuneError(Exception):
    """Base class. `code` is stable and for programs, `message` is for people, `param` is the invalid field."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidInput(SecureTuneError):
    code = "invalid_input"


class InvalidDataset(InvalidInput):
    """A file has invalid rows: `errors` has the first of them, `count` is their number."""

    code = "invalid_dataset"

    def __init__(
        self, message: str, *, errors: tuple[RowError, ...] = (), count: int = 0, code: str | None = None
    ) -> None:
        super().__init__(message, code=code, param="file")
        self.errors = errors
        self.count = count


class InvalidModel(InvalidInput):
    code = "invalid_model"


class NotFound(SecureTuneError):
    code = "not_found"


class NotAuthenticated(SecureTuneError):
    code = "invalid_api_key"


class Forbidden(SecureTuneError):
    code = "forbidden"


class Withheld(Forbidden):
    """The gate withholds a file: `reasons` has its reasons."""

    code = "gate_undecided"

    def __init__(self, message: str, *, code: str | None = None, reasons: tuple[GateReason, ...] = ()) -> None:
        super().__init__(message, code=code)
        self.reasons = reasons


class Conflict(SecureTuneError):
    code = "conflict"


class TooLarge(SecureTuneError):
    code = "too_large"


class Unavailable(SecureTuneError):
    code = "unavailable"


class StorageFull(Unavailable):
    code = "storage_full"


class TrainingFailed(SecureTuneError):
    code = "training_failed"


class Interrupted(SecureTuneError):
    code = "interrupted"
