"""The base class of everything that enters or leaves the service: frozen, without unknown fields, finite numbers only.

Covers: the pydantic configuration. Not here: any field.
"""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value. Unknown fields, NaN and infinity are rejected."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )
