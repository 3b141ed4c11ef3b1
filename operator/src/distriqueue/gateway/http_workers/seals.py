"""What the gateway gives a worker to keep, and believes when it is shown again: sessions and receipts.

Guarantees: only a replica that knows the key makes one, and each names the caller for whom it was made, so that nobody
can speak for another's session, take over another's job, or have a request handed on to an address of its choice. The
key is derived from the broker's user and password, which all replicas share and no caller knows: with a new password
old seals are void, workers register anew, and what they held runs again. Fails with `BrokenSealError`, which does not
say why. Pure.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distriqueue.gateway.identities import Identity
from distriqueue_protocol.messages import GrantId, Ticket
from distriqueue_protocol.names import Priority

_SEAL_BYTES: Final = 24


class BrokenSealError(Exception):
    """It is not ours, not for this caller, or not whole."""


def caller_mark(caller: Identity) -> str:
    """What names a caller in a seal, without naming it to whoever sees the seal."""
    return hashlib.sha256(f"{caller.name}\n{caller.uid}".encode()).hexdigest()[:32]


class SealKey:
    """Makes seals and knows them again.

    Args:
        broker_url: The URL, with the user and the password that all replicas share. The rest of it may differ.
    """

    def __init__(self, broker_url: str) -> None:
        parts = urlsplit(broker_url)
        secret = f"distriqueue http workers\n{parts.username}\n{parts.password}"
        self._key = hashlib.sha256(secret.encode()).digest()

    def seal(self, kind: str, body: bytes) -> str:
        """A text of letters, digits, `-`, `_` and one dot."""
        return f"{_text(body)}.{_text(self._sign(kind, body))}"

    def open(self, kind: str, text: str) -> bytes:
        """What was sealed.

        Raises:
            BrokenSealError: It was not, or not as this kind.
        """
        try:
            body, seal = (_bytes(part) for part in text.split("."))
        except (ValueError, binascii.Error):
            raise BrokenSealError from None
        if not hmac.compare_digest(seal, self._sign(kind, body)):
            raise BrokenSealError
        return body

    def _sign(self, kind: str, body: bytes) -> bytes:
        return hmac.digest(self._key, kind.encode() + b"\n" + body, "sha256")[:_SEAL_BYTES]


class _Sealed(BaseModel):
    """Short keys, because it travels in paths."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    caller: str = Field(alias="c")

    def sealed(self, key: SealKey) -> str:
        """The text that is given away."""
        return key.seal(type(self).__name__, self.model_dump_json(by_alias=True, exclude_defaults=True).encode())

    @classmethod
    def opened(cls, text: str, key: SealKey, *, caller: Identity) -> Self:
        """Read what a caller shows.

        Raises:
            BrokenSealError: It was not made for this caller.
        """
        try:
            found = cls.model_validate_json(key.open(cls.__name__, text))
        except ValidationError:
            raise BrokenSealError from None
        if found.caller != caller_mark(caller):
            raise BrokenSealError
        return found


class SessionSeal(_Sealed):
    """A session: its incarnation, and the address of the replica that keeps it."""

    incarnation: str = Field(alias="i")
    owner: str = Field(alias="o")


class ReceiptSeal(_Sealed):
    """A grant that was handed to a worker, with what a report of it needs."""

    grant: Annotated[GrantId, Field(alias="g")]
    claim: int = Field(alias="l")
    namespace: str = Field(alias="ns")
    name: str = Field(alias="n")
    uid: str = Field(alias="u")
    type: str = Field(alias="t")
    attempt: int = Field(alias="a")
    max_attempts: int = Field(default=1, alias="m")
    priority: Priority = Field(default=Priority.MEDIUM, alias="p")
    epoch: int = Field(alias="e")
    started: str | None = Field(default=None, alias="s")

    @classmethod
    def of(cls, grant: GrantId, ticket: Ticket, *, claim: int, caller: Identity, started: str | None) -> "ReceiptSeal":
        """The receipt of a delivery."""
        return cls(
            caller=caller_mark(caller),
            grant=grant,
            claim=claim,
            namespace=ticket.namespace,
            name=ticket.name,
            uid=ticket.uid,
            type=ticket.type,
            attempt=ticket.attempt,
            max_attempts=ticket.max_attempts,
            priority=ticket.priority,
            epoch=ticket.epoch,
            started=started,
        )

    def ticket(self) -> Ticket:
        """The ticket that led to the grant, without its payload."""
        return Ticket(
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
            type=self.type,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            priority=self.priority,
            epoch=self.epoch,
        )


def _text(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
