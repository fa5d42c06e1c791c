"""Every error that a caller may see, drawn as a tree. No HTTP in here: api.errors gives each class its status.

    SecureTuneError
    ├── InvalidInput            the caller's request is wrong; change it
    │   ├── InvalidDataset      rows of an upload were refused; carries their places
    │   └── InvalidModel        the base model cannot be used as asked
    ├── NotFound                no such thing, or not the caller's
    ├── NotAuthenticated        no key, or a wrong one
    ├── Forbidden               a valid key without the right to do this
    │   └── Withheld            the gate does not hand this out; carries its reasons
    ├── Conflict                the thing is in the wrong state for this
    ├── TooLarge                over a limit of the server
    ├── Unavailable             a part of the service is down; try again
    │   └── StorageFull         the artifact store has no room
    ├── TrainingFailed          the run itself cannot go on (exploding loss, no trainable row)
    └── Interrupted             the run was stopped from outside

Every error has a stable `code`, a message that says what to do, and survives pickling.
"""

from core.schemas.data import RowError
from core.schemas.gate import GateReason


class SecureTuneError(Exception):
    """Base class. `code` is stable and meant for programs; `message` is meant for people."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))


def _rebuild(kind: type[SecureTuneError], message: str, state: dict[str, object]) -> SecureTuneError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InvalidInput(SecureTuneError):
    code = "invalid_input"


class InvalidDataset(InvalidInput):
    """Rows of a file were refused: `errors` holds the first ones, `count` says how many there are in all."""

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
    """What was trained is not handed out: `reasons` holds those of the gate."""

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
