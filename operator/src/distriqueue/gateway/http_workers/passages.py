"""How a request reached this replica: what it takes to hand it on, and whether it was handed on already."""

from dataclasses import dataclass, field
from typing import Final

FORWARDED_HEADER: Final = "Distriqueue-Forwarded"
"""Marks a request that another replica handed on, so that none goes round in circles."""


@dataclass(frozen=True, slots=True)
class Passage:
    """See the module.

    Attributes:
        token: The caller's bearer token, without `Bearer`; None if it showed none.
        forwarded: The request has `FORWARDED_HEADER`.
    """

    token: str | None = field(default=None, repr=False)
    forwarded: bool = False


DIRECT: Final = Passage()
"""From the caller itself, without a token."""
