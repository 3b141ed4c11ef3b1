"""Payloads that stand in a ConfigMap: read when a claim is judged, for that claim alone.

A claim of a job with such a payload is judged twice: when it comes, and again when the ConfigMap has been read, because
by then everything may have changed. In between it is open and unanswered.

Guarantees: what was read goes into one answer, which is kept until the worker's next heartbeat has it, and nowhere
else; no job without a reference costs anything. Of one job at most one read is under way, and after one that gave no
payload there is none for a while, longer each time: the job waits, its status says for what, and no attempt is used up.
What can never be a payload ends the job.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final

from pydantic import JsonValue

from distriqueue.api.conditions import JobReason
from distriqueue.core import announcing, statuses
from distriqueue.core.books import Books
from distriqueue.core.commands import ResolvePayload
from distriqueue.core.jobs import Job, Source, Stage, Unready
from distriqueue.core.roster import Session
from distriqueue.core.times import Now
from distriqueue.core.writing import Writing
from distriqueue_protocol.messages import Claim
from distriqueue_protocol.payloads import PayloadTextError, read_payload_text

FIRST_PAUSE_SECONDS: Final = 2.0
"""After a first read that gave no payload; each pause is twice the one before."""
LONGEST_PAUSE_SECONDS: Final = 30.0
"""At the most so long after a ConfigMap has appeared its jobs go on."""


class Obstacle(StrEnum):
    """Why a ConfigMap gave no text."""

    NO_CONFIG_MAP = "NoConfigMap"
    """There is none of that name."""
    NO_KEY = "NoKey"
    """It has no such key."""
    FORBIDDEN = "Forbidden"
    """The operator may not read it."""
    UNREAD = "Unread"
    """The API server gave no answer, or none that helps."""


@dataclass(slots=True, eq=False)
class _Read:
    """A read under way.

    Attributes:
        claims: The claims that wait for it, by incarnation and number, with the session that made each.
    """

    number: int
    uid: str
    claims: dict[tuple[str, int], Session] = field(default_factory=dict)


class Payloads:
    """See the module."""

    def __init__(self, books: Books, writing: Writing) -> None:
        self._books = books
        self._writing = writing
        self._numbers = count(1)
        self._reads: dict[str, _Read] = {}
        self._in_hand: dict[str, dict[str, JsonValue]] = {}

    def is_fit(self, job: Job, session: Session, now: Now) -> bool:
        """Whether a worker understands a job with a reference; if not, the job waits a while for one that does."""
        registration = session.registration
        if registration is not None and registration.payload_references:
            return True
        why = "upgrade the workers of its pool: one asked for the job whose version knows no spec.payloadFrom"
        self._put_off(job, _source(job), Unready(JobReason.WORKER_TOO_OLD, why), now)
        return False

    def take(self, job: Job, session: Session, claim: Claim) -> dict[str, JsonValue] | None:
        """The payload of a job that is about to be granted.

        Returns:
            The payload; None when it has to be read first. Then the claim is to be judged again when `judged_again`
            names it.
        """
        payload = self._in_hand.pop(job.uid, None)
        if payload is not None:
            source = _source(job)
            source.unready, source.failures, source.resolved = None, 0, True
            return payload
        read = self._reads.get(job.uid)
        if read is None:
            read = self._reads[job.uid] = _Read(next(self._numbers), job.uid)
            source = _source(job)
            self._books.want(
                ResolvePayload(read.number, job.uid, job.namespace, job.name, config_map=source.name, key=source.key)
            )
        read.claims[session.incarnation, claim.id] = session
        return None

    def judged_again(
        self, uid: str, number: int, content: str | bytes | Obstacle, now: Now
    ) -> Iterator[tuple[Session, Claim]]:
        """A ConfigMap was read.

        Args:
            uid: Of the job.
            number: Of the read.
            content: What stands under the key, or why there is nothing.
            now: The moment.

        Yields:
            The claims that wait for it and are still open; the payload is in hand as long as they are judged.
        """
        read = self._reads.get(uid)
        if read is None or read.number != number:
            return
        del self._reads[uid]
        job = self._books.jobs.get(uid)
        if job is not None and job.source is not None and may_be_granted(job):
            self._decide(job, job.source, content, now)
        for (incarnation, claim_id), session in read.claims.items():
            claim = session.claims.get(claim_id)
            if claim is not None and self._books.roster.sessions.get(incarnation) is session:
                yield session, claim
        self._in_hand.pop(uid, None)

    def _decide(self, job: Job, source: Source, content: str | bytes | Obstacle, now: Now) -> None:
        """What was read is a payload, or the job waits, or it can never run."""
        if isinstance(content, Obstacle):
            self._put_off(job, source, _unready(job, source, content), now)
            return
        what = f'spec.payloadFrom: key "{source.key}" of ConfigMap "{source.name}"'
        try:
            self._in_hand[job.uid] = read_payload_text(content, what=what, limit=self._books.settings.payload_limit)
        except PayloadTextError as error:
            self._writing.refuse(job, JobReason(error.reason), str(error), now)

    def _put_off(self, job: Job, source: Source, unready: Unready, now: Now) -> None:
        """Let a job wait for its payload: no attempt is used up, and the status says why it waits."""
        source.failures += 1
        source.resolved = False
        source.not_before = now.mono + min(
            FIRST_PAUSE_SECONDS * 2.0 ** min(source.failures - 1, 16), LONGEST_PAUSE_SECONDS
        )
        # An API server that did not answer once is nothing to write about, least of all to it.
        source.unready = None if unready.reason is JobReason.CONFIG_MAP_UNREAD and source.failures == 1 else unready
        if statuses.payload_untold(job):
            announcing.payload_not_ready(self._books, job, unready.message)
        self._books.place(job, now)
        self._writing.advance(job, now)


def may_be_granted(job: Job) -> bool:
    """Whether it still matters what was read: nobody has the job, and nothing forbids that somebody gets it."""
    return job.stage in (Stage.WAITING, Stage.TICKETED)


def _source(job: Job) -> Source:
    assert job.source is not None  # noqa: S101 - callers have looked
    return job.source


_REASONS: Final = {
    Obstacle.NO_CONFIG_MAP: JobReason.CONFIG_MAP_NOT_FOUND,
    Obstacle.NO_KEY: JobReason.CONFIG_MAP_KEY_NOT_FOUND,
    Obstacle.FORBIDDEN: JobReason.CONFIG_MAP_FORBIDDEN,
    Obstacle.UNREAD: JobReason.CONFIG_MAP_UNREAD,
}
_RULE: Final = '{apiGroups: [""], resources: [configmaps], verbs: [get]}'


def _unready(job: Job, source: Source, obstacle: Obstacle) -> Unready:
    config_map, within = f'ConfigMap "{source.name}"', f'namespace "{job.namespace}"'
    sentences = {
        Obstacle.NO_CONFIG_MAP: f'there is no {config_map} in {within}: create it, with the key "{source.key}"',
        Obstacle.NO_KEY: f'{config_map} has no key "{source.key}": add it',
        Obstacle.FORBIDDEN: f"the operator may not read ConfigMaps in {within}: add the rule {_RULE} to its role there",
        Obstacle.UNREAD: f"the API server gave no answer about {config_map}: it is asked again",
    }
    return Unready(_REASONS[obstacle], f"{sentences[obstacle]}; the job goes on by itself")
