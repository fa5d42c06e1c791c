"""The base of every class that crosses an edge: frozen, closed, and strict about numbers.

Covers: the pydantic configuration. Not here: any field.
"""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: it cannot be changed, unknown fields are refused, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )
