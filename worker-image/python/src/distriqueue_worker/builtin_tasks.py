"""The tasks that every worker brings along: `email`, `fail`, `calculate`, and `*` for everything else.

They are there to try things out with, and as examples of handlers. Payloads are pydantic models, so what is wrong with
one is said in the job's status.
"""

import asyncio
import math
import smtplib
from collections.abc import Callable
from email.message import EmailMessage
from functools import reduce
from operator import truediv
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from distriqueue_worker.settings import Settings
from distriqueue_worker.tasks import PermanentError, TaskContext, task

SIMULATED_EMAIL_SECONDS = 2.0
FAIL_SECONDS = 1.0
SMTP_TIMEOUT_SECONDS = 10.0
EXPONENT_MOST = 10_000.0
"""Larger powers are infinite anyway, or take longer than a quick task may."""

Line = Annotated[str, Field(min_length=1, max_length=998, pattern=r"^[^\r\n]*$")]
"""A line of an e-mail's head: no line breaks, which would let a payload add headers."""
Number = Annotated[float, Field(allow_inf_nan=False)]


class Payload(BaseModel):
    """Payloads of the built-in tasks: camelCase keys, and no others than these."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Email(Payload):
    """An e-mail to send."""

    to: Line
    subject: Line
    body: str = Field(default="", max_length=65_536)
    sender: Line = "distriqueue@localhost"


class Sent(BaseModel):
    """What became of an e-mail."""

    sent: bool = True
    simulated: bool
    to: str


@task("email")
def email(payload: Email, context: TaskContext) -> Sent:
    """Send an e-mail by the server of DISTRIQUEUE_SMTP_URL; without one take 2 s and say that it was simulated."""
    url = Settings.load().smtp_url
    if url is None:
        context.log.info("no DISTRIQUEUE_SMTP_URL: simulating an e-mail to %s", payload.to)
        context.cancelled.wait(SIMULATED_EMAIL_SECONDS)
        context.raise_if_cancelled()
        return Sent(simulated=True, to=payload.to)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = payload.sender, payload.to, payload.subject
    # A second attempt at the same job carries the same id, so that receivers can tell doubles.
    message["Message-ID"] = f"<{context.uid}@distriqueue>"
    message.set_content(payload.body)
    _deliver(url.get_secret_value(), message)
    return Sent(simulated=False, to=payload.to)


def _deliver(url: str, message: EmailMessage) -> None:
    parts = urlsplit(url)
    kind = smtplib.SMTP_SSL if parts.scheme == "smtps" else smtplib.SMTP
    try:
        with kind(parts.hostname or "localhost", parts.port or 0, timeout=SMTP_TIMEOUT_SECONDS) as server:
            if parts.username:
                if parts.scheme != "smtps":
                    server.starttls()
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        raise PermanentError(f"the mail server refused the recipient {message['To']}") from error


class Fail(Payload):
    """How to fail."""

    message: str = Field(default="this task always fails", max_length=1024)


@task("fail")
async def fail(payload: Fail, context: TaskContext) -> None:
    """Fail after a second, always."""
    context.log.info("attempt %s of %s is about to fail", context.attempt, context.max_attempts)
    await asyncio.sleep(FAIL_SECONDS)
    raise RuntimeError(payload.message)


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > EXPONENT_MOST:
        raise PermanentError(f"an exponent must lie between -{EXPONENT_MOST:.0f} and {EXPONENT_MOST:.0f}")
    try:
        return math.pow(base, exponent)
    except ValueError as error:
        raise PermanentError(f"{base:g} to the power of {exponent:g} has no real value") from error


_OPERATIONS: Final[dict[str, Callable[[list[float]], float]]] = {
    "add": math.fsum,
    "sum": math.fsum,
    "subtract": lambda operands: operands[0] - math.fsum(operands[1:]),
    "multiply": math.prod,
    "divide": lambda operands: reduce(truediv, operands),
    "power": lambda operands: reduce(_power, operands),
    "mean": lambda operands: math.fsum(operands) / len(operands),
    "min": min,
    "max": max,
}


class Calculate(Payload):
    """An operation and what it works on, from left to right."""

    operation: Literal["add", "sum", "subtract", "multiply", "divide", "power", "mean", "min", "max"]
    operands: list[Number] = Field(min_length=1, max_length=10_000)


class Calculated(BaseModel):
    """The value of a calculation."""

    result: float


@task("calculate")
async def calculate(payload: Calculate, _context: TaskContext) -> Calculated:
    """Calculate; what has no value (a division by zero) fails for good."""
    try:
        value = _OPERATIONS[payload.operation](payload.operands)
    except ZeroDivisionError as error:
        raise PermanentError("division by zero") from error
    except OverflowError as error:
        raise PermanentError("the value is too large") from error
    if not math.isfinite(value):
        raise PermanentError("the value is too large")
    return Calculated(result=value)


class Anything(BaseModel):
    """Any payload; `sleepSeconds` says how long the default task takes."""

    model_config = ConfigDict(extra="allow")
    sleepSeconds: Number = Field(default=1.0, ge=0, le=3600)  # noqa: N815 - the key as people write it in a payload


@task("*")
async def anything(payload: Anything, context: TaskContext) -> dict[str, JsonValue]:
    """Take a second, or `sleepSeconds`, and return the type and payload that came."""
    if payload.sleepSeconds:
        await asyncio.sleep(payload.sleepSeconds)
    return {"type": context.type, "payload": payload.model_dump(mode="json", exclude_unset=True)}
