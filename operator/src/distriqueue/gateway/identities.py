"""Who calls, and what they may do: TokenReview and SubjectAccessReview of the API server, remembered for seconds.

Guarantees: nobody passes whom the API server has not let pass within the last `auth_cache_seconds`. When it does not
answer, the caller gets `Unavailable`, never a pass and never a no; such a question is not remembered. Tokens are
neither kept nor logged: the memory knows them by their SHA-256. Equal questions that come while one is under way share
its answer; the memory is bounded, and what was refused has a memory of its own, so that a flood of wrong tokens
pushes no right one out. There are at most `REVIEWS` questions of a kind under way: rights have turns of their own, so
that such a flood does not keep those waiting whose tokens are known.

With `auth: none` everybody is `ANONYMOUS` and may do everything, which the log says at the start and every hour.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, Protocol, Self, TypeVar

from distriqueue.api import names
from distriqueue.gateway.problems import RETRY_SECONDS, Forbidden, Unauthenticated, Unavailable
from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import KubeError

_LOG: Final = logging.getLogger(__name__)

TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

REVIEWS: Final = 32
"""Questions of a kind to the API server that are under way at a time; others wait for their turn."""
REVIEW_SECONDS: Final = 5.0
"""How long an answer may take, with the wait for a turn."""
REFUSED_SECONDS: Final = 2.0
"""How long a refusal is remembered: a right that was just given is not waited for."""
WARN_SECONDS: Final = 3600.0
"""How often the log says that everybody may do everything."""
TOKEN_LIMIT: Final = 16 * 1024
"""Longest token that is looked at, in characters."""
RUN: Final = "run"
"""The verb of our own, on distributedjobs: may work, as an HTTP worker, on the jobs of a namespace."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

Kind = Literal["token", "access"]
Outcome = Literal["remembered", "allowed", "refused", "failed"]
Count = Callable[[Kind, Outcome], None]
"""Is told of every question and how it was answered; `failed`: the API server did not answer."""


class AccessSettings(Protocol):
    """What is read of the gateway's settings."""

    @property
    def auth(self) -> Literal["kubernetes", "none"]:
        """`none` lets everybody do everything."""

    @property
    def auth_audiences(self) -> tuple[str, ...]:
        """Audiences, one of which a token must be meant for; empty: the API server's own."""

    @property
    def auth_cache_seconds(self) -> float:
        """How long an answer that lets pass is remembered."""

    @property
    def auth_cache_entries(self) -> int:
        """Most answers of a kind that are remembered."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as the API server knows it.

    Attributes:
        name: The user name, such as ``system:serviceaccount:shop:api``.
        uid: Tells apart users that had the same name at different times; may be empty.
        groups: Groups that the user is in.
        extra: What else the API server's authenticator knows, for its authorizer.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), hash=False)


ANONYMOUS: Final = Identity(name="anonymous")
"""Everybody, with `auth: none`."""

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Right:
    """A question for the authorizer."""

    caller: Identity
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str | None


class Access:
    """Answers who calls and what they may do; made by `create`."""

    def __init__(
        self, client: KubeClient, settings: AccessSettings, *, count: Count, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._open = settings.auth == "none"
        self._audiences = settings.auth_audiences
        remember: dict[str, Any] = {
            "seconds": settings.auth_cache_seconds,
            "entries": settings.auth_cache_entries,
            "now": now,
        }
        self._identities: _Answers[bytes, Identity | None] = _Answers(**remember, count=lambda how: count("token", how))
        self._rights: _Answers[_Right, bool] = _Answers(**remember, count=lambda how: count("access", how))
        self._warning: asyncio.TimerHandle | None = None

    @classmethod
    def create(
        cls, client: KubeClient, settings: AccessSettings, *, count: Count = lambda _kind, _outcome: None
    ) -> Self:
        """Return one that asks through a client; call it from the event loop.

        Args:
            client: Of an account that may create TokenReviews and SubjectAccessReviews.
            settings: The gateway's.
            count: Counts questions and answers.
        """
        access = cls(client, settings, count=count)
        if access._open:
            access._warn()
        return access

    def _warn(self) -> None:
        _LOG.warning(
            "AUTHENTICATION IS OFF (auth: none): everybody who reaches this gateway may read, submit, cancel and "
            "delete the jobs of all namespaces, and may take them as a worker. Set DISTRIQUEUE_AUTH=kubernetes."
        )
        self._warning = asyncio.get_running_loop().call_later(WARN_SECONDS, self._warn)

    def close(self) -> None:
        """End the hourly warning. Questions under way are answered."""
        if self._warning is not None:
            self._warning.cancel()

    async def identify(self, token: str | None) -> Identity:
        """Say whose token it is.

        Args:
            token: What stood behind ``Bearer`` in the request; None if there was nothing.

        Raises:
            Unauthenticated: There is no token, or the API server does not take it.
            Unavailable: The API server does not answer.
        """
        if self._open:
            return ANONYMOUS
        if not token:
            raise Unauthenticated(
                "Show a bearer token of the cluster: the header `Authorization: Bearer TOKEN`, with a token as "
                "`kubectl create token SERVICEACCOUNT` makes it."
            )
        if len(token) > TOKEN_LIMIT or not _TOKEN.fullmatch(token):
            raise Unauthenticated("This is no bearer token: it has to be printable ASCII of at most 16 KiB.")
        key = hashlib.sha256(token.encode()).digest()
        identity = await self._identities.get(key, lambda: self._review_token(token))
        if identity is None:
            raise Unauthenticated(
                "The cluster does not take this token: it may have expired, belong to a deleted account, or be meant "
                f"for another audience. Make a new one with `kubectl create token SERVICEACCOUNT{self._flags()}`."
            )
        return identity

    def _flags(self) -> str:
        return f" --audience={self._audiences[0]}" if self._audiences else ""

    async def permits(
        self,
        caller: Identity,
        verb: str,
        *,
        namespace: str | None,
        resource: str = names.JOB_PLURAL,
        subresource: str = "",
        group: str = names.GROUP,
    ) -> bool:
        """Say whether a caller may do something, by the cluster's own rules.

        Args:
            caller: As `identify` gave it.
            verb: get, list, watch, create, patch, delete, or `RUN`.
            namespace: Where; None asks for all namespaces at once.
            resource: What kind of resource, in the plural.
            subresource: Of it.
            group: The API group of the resource.

        Raises:
            Unavailable: The API server does not answer.
        """
        if self._open:
            return True
        right = _Right(
            caller=caller, verb=verb, group=group, resource=resource, subresource=subresource, namespace=namespace
        )
        return await self._rights.get(right, lambda: self._review_access(right))

    async def require(
        self,
        caller: Identity,
        verb: str,
        *,
        namespace: str | None,
        resource: str = names.JOB_PLURAL,
        subresource: str = "",
        group: str = names.GROUP,
    ) -> None:
        """Let a caller pass who may do something. The arguments are those of `permits`.

        The refusal names the namespace; where the caller has not named it, ask `permits` and refuse without it.

        Raises:
            Forbidden: The cluster's rules do not allow it.
            Unavailable: The API server does not answer.
        """
        if not await self.permits(
            caller, verb, namespace=namespace, resource=resource, subresource=subresource, group=group
        ):
            what = f"{resource}/{subresource}" if subresource else resource
            raise Forbidden(refusal(caller, verb, what=f"{what}.{group}", namespace=namespace))

    async def _review_token(self, token: str) -> Identity | None:
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = list(self._audiences)
        status = await self._ask(TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
        user = status.get("user") or {}
        name = user.get("username")
        if status.get("authenticated") is not True or not name:
            return None
        # An authenticator that knows nothing of audiences leaves them out: its word is for the API server's own alone.
        if self._audiences and not set(self._audiences) & set(status.get("audiences") or ()):
            return None
        extra = {key: tuple(values or ()) for key, values in (user.get("extra") or {}).items()}
        return Identity(
            name=name,
            uid=user.get("uid") or "",
            groups=tuple(user.get("groups") or ()),
            extra=MappingProxyType(extra),
        )

    async def _review_access(self, right: _Right) -> bool:
        caller = right.caller
        attributes = {"verb": right.verb, "group": right.group, "version": "*", "resource": right.resource}
        if right.subresource:
            attributes["subresource"] = right.subresource
        if right.namespace is not None:
            attributes["namespace"] = right.namespace
        spec: dict[str, Any] = {"user": caller.name, "resourceAttributes": attributes}
        if caller.uid:
            spec["uid"] = caller.uid
        if caller.groups:
            spec["groups"] = list(caller.groups)
        if caller.extra:
            spec["extra"] = {key: list(values) for key, values in caller.extra.items()}
        status = await self._ask(ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _ask(self, path: str, version: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        # The answer may carry the token that was asked about: it goes no further than here.
        body = {"apiVersion": version, "kind": kind, "spec": dict(spec)}
        try:
            answer = await self._client.request("POST", path, body=body, timeout=REVIEW_SECONDS)
        except KubeError as error:
            # Whatever it is, it says nothing about the caller: even a 401 or 403 is about our own account.
            _LOG.warning("a %s has no answer: %s", kind, error.message)
            raise _unavailable(error.retry_after) from error
        status = answer.get("status")
        return status if isinstance(status, dict) else {}


def refusal(caller: Identity, verb: str, *, what: str, namespace: str | None) -> str:
    """Return the sentence that a refused caller reads.

    Args:
        caller: Who is refused.
        verb: What was to be done.
        what: With which resource, with its API group.
        namespace: Where; None for all namespaces.
    """
    where = f'in the namespace "{namespace}"' if namespace is not None else "in all namespaces"
    binding = "RoleBinding there" if namespace is not None else "ClusterRoleBinding"
    return (
        f'"{caller.name}" may not {verb} {what} {where}. Who administers it can allow it by a {binding} to a role '
        "with that verb, such as the ClusterRoles `view`, `edit` or the chart's own."
    )


def _unavailable(retry_after: float = 0.0) -> Unavailable:
    return Unavailable(
        "The Kubernetes API server does not answer, so nobody can say who you are and what you may do. Try again.",
        retry_after=max(retry_after, RETRY_SECONDS),
    )


class _Answers(Generic[_K, _V]):
    """Answers to questions, for a while: those that let pass and those that do not apart; equal ones asked once."""

    def __init__(
        self,
        *,
        seconds: float,
        entries: int,
        now: Callable[[], float],
        count: Callable[[Outcome], None],
    ) -> None:
        self._turns = asyncio.Semaphore(REVIEWS)
        self._now = now
        self._count = count
        self._good: _Memory[_K, _V] = _Memory(seconds=seconds, entries=entries)
        self._bad: _Memory[_K, _V] = _Memory(seconds=min(seconds, REFUSED_SECONDS), entries=entries)
        self._asking: dict[_K, asyncio.Task[_V]] = {}

    async def get(self, key: _K, ask: Callable[[], Awaitable[_V]]) -> _V:
        now = self._now()
        for memory in (self._good, self._bad):
            found = memory.get(key, now)
            if found is not None:
                self._count("remembered")
                return found[0]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, ask), name="review")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        # One that goes away must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def _ask(self, key: _K, ask: Callable[[], Awaitable[_V]]) -> _V:
        try:
            async with asyncio.timeout(REVIEW_SECONDS), self._turns:
                # What was true when we asked is as old as the question.
                asked = self._now()
                answer = await ask()
        except TimeoutError as error:
            self._count("failed")
            raise _unavailable() from error
        except Unavailable:
            self._count("failed")
            raise
        self._count("allowed" if answer else "refused")
        (self._good if answer else self._bad).put(key, answer, asked)
        return answer

    def _asked(self, key: _K, task: asyncio.Task[_V]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # all who waited may be gone; nobody else would look at it


class _Memory(Generic[_K, _V]):
    """The last answers, each for as long as it may be believed."""

    def __init__(self, *, seconds: float, entries: int) -> None:
        self._seconds = seconds
        self._entries = entries
        self._known: OrderedDict[_K, tuple[_V, float]] = OrderedDict()

    def get(self, key: _K, now: float) -> tuple[_V] | None:
        known = self._known.get(key)
        if known is None:
            return None
        value, until = known
        if now >= until:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return (value,)

    def put(self, key: _K, value: _V, now: float) -> None:
        self._known[key] = (value, now + self._seconds)
        self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)
