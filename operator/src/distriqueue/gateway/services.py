"""What every door does with jobs: submit, read, change, watch and explain them, for a caller with rights.

Guarantees: rights are asked first, in the caller's name (SubjectAccessReview); what is then done is done with the
gateway's own account, and `submitted-by` names the caller. Reads come from the cache. A submission is one create and
nothing else that waits on the API server; it needs neither leader nor broker. A change is decided on a version of the
job and lands on that version or is decided anew, so two retries at the same time are one; what is refused because of
the job's state is looked up at the API server before it is refused. What was created or changed here is in this
replica's cache when the answer goes out.

Every method fails with `Problem`s alone. A uid without rights is 403 and does not say where the job is; one that nobody
knows is 404, after a second in which it may still come.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Self, cast

import orjson

from distriqueue.api.limits import NAME_LIMIT
from distriqueue.api.names import WORKER_PLURAL
from distriqueue.api.raw import RawJob
from distriqueue.gateway import wishes
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.changes import Audience, Change
from distriqueue.gateway.clusters import ClusterService
from distriqueue.gateway.explanations import Explainer
from distriqueue.gateway.identities import ANONYMOUS, Access, Identity
from distriqueue.gateway.problems import (
    Conflict,
    FieldError,
    Forbidden,
    Internal,
    NotFound,
    Problem,
    Unavailable,
    Unprocessable,
    from_kube,
)
from distriqueue.gateway.queries import BREATH, JobQuery, select
from distriqueue.gateway.requests import WRITES, JobRequests
from distriqueue.gateway.rows import Row
from distriqueue.gateway.showing import explanation_view, job_view
from distriqueue.gateway.statistics import Tally
from distriqueue.gateway.submissions import (
    is_repeated,
    job_json,
    keyed_name,
    made_name,
    random_part,
    request_hash,
    spec_json,
)
from distriqueue.gateway.views import (
    NAME_PATTERN,
    NAMESPACE_LIMIT,
    NAMESPACE_PATTERN,
    ExplanationView,
    JobPage,
    JobSubmission,
    JobView,
    Statistics,
)
from distriqueue.kube import errors as kube
from distriqueue.kube.client import KubeClient

__all__ = ["ClusterService", "JobRef", "JobService", "Submitted"]

_LOG: Final = logging.getLogger(__name__)

BATCH: Final = 1000
"""Most submissions of one call."""

TRIES: Final = 8
"""How often a change is decided anew when somebody else wrote first."""

PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page of jobs ends when so much was read for it, though fewer jobs than asked for are on it: it is encoded in one
piece, and 500 jobs of the largest payloads and results would be 64 MiB."""

_VIEWS_IN_A_ROW: Final = 100
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_NAMESPACE: Final = re.compile(NAMESPACE_PATTERN)
_NAME: Final = re.compile(NAME_PATTERN)

Outcomes = list["Submitted | Problem"]
"""What became of each submission, in their order."""


@dataclass(frozen=True, slots=True)
class JobRef:
    """Which job: by uid, or by namespace and name."""

    uid: str = ""
    namespace: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``UID`` or ``NAMESPACE/NAME``.

        Raises:
            NotFound: It is neither, so there is no such job.
        """
        namespace, slash, name = text.partition("/")
        if not slash:
            if _UID.fullmatch(text):
                return cls(uid=text)
        elif (
            len(namespace) <= NAMESPACE_LIMIT
            and len(name) <= NAME_LIMIT
            and _NAMESPACE.fullmatch(namespace)
            and _NAME.fullmatch(name)
        ):
            return cls(namespace=namespace, name=name)
        raise NotFound(f"there is no job {text[:80]!r}: name one by its uid, or as NAMESPACE/NAME")

    @property
    def key(self) -> str | tuple[str, str]:
        """How the cache knows it."""
        return self.uid or (self.namespace, self.name)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return self.uid or f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submission.

    Attributes:
        job: The job.
        created: False when the Idempotency-Key found the job of an earlier request, and for a dry run.
        explanation: What it would wait for; of a dry run only.
    """

    job: JobView
    created: bool
    explanation: ExplanationView | None = None


def fitting(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the first of these jobs: as many as `PAGE_BYTES` hold, and one at least."""
    size = 0
    for count, row in enumerate(rows):
        size += len(row.data)
        if count and size > PAGE_BYTES:
            return rows[:count]
    return rows


class JobService:
    """See the module."""

    def __init__(
        self,
        client: KubeClient,
        *,
        jobs: JobCache,
        cluster: ClusterCache,
        access: Access,
        default_namespace: str = "default",
        writes: int = WRITES,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """Join the parts.

        Args:
            client: With the gateway's own account, and at least as many connections as writes.
            jobs: Filled by `JobCache.run`.
            cluster: Filled by `ClusterCache.run`.
            access: Asked by every method first.
            default_namespace: For submissions that name none.
            writes: Most writes under way at a time; further ones wait.
            wall: Seconds since 1970.
            rng: Draws pauses.
        """
        self._jobs = jobs
        self._cluster = cluster
        self._explainer = Explainer(jobs, cluster)
        self._access = access
        self._default_namespace = default_namespace
        self._requests = JobRequests(client, writes=writes, rng=rng, wall=wall)
        self._wall = wall

    # --- submitting ---

    async def submit(
        self,
        caller: Identity,
        namespace: str | None,
        submission: JobSubmission,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> Submitted:
        """Create a job.

        With an Idempotency-Key the caller gets the same job however often it asks; a submission that names its job is
        found by that name, any other by a name that follows from the key.

        Args:
            caller: Needs `create`.
            namespace: Where; None: the submission's own, or the default.
            submission: What.
            idempotency_key: 1 to 255 visible ASCII characters.
            dry_run: Only look whether it would be taken, and what it would wait for.

        Raises:
            Forbidden: The caller may not create jobs there.
            Unprocessable: The submission is wrong, or the key was used for another one.
            Conflict: A job of this name exists.
            NotFound: There is no such namespace.
            Unavailable: The API server is away or busy.
        """
        where = self._namespace(namespace, submission)
        await self._access.require(caller, "create", namespace=where)
        self._check_covered(where)
        spec = spec_json(submission)
        asked = None if idempotency_key is None else request_hash(submission, spec)
        if idempotency_key is not None:
            keyed = keyed_name(where, caller.name, idempotency_key)
            name = submission.name or keyed
        else:
            name = submission.name or made_name(submission, random_part())
        body = job_json(submission, spec, name=name, caller=caller.name, asked=asked)
        try:
            made = await self._requests.create(where, body, dry_run=dry_run)
        except kube.AlreadyExists as error:
            if asked is None:
                raise from_kube(error) from error
            return await self._repeated(caller, where, name, asked=asked, given=submission.name is not None)
        except kube.KubeError as error:
            raise from_kube(error) from error
        view = job_view(cast("RawJob", made))
        if dry_run:
            explanation = await self._explain(caller, cast("RawJob", made))
            return Submitted(view, created=False, explanation=explanation)
        self._jobs.put(made)
        return Submitted(view, created=True)

    async def submit_many(
        self, caller: Identity, namespace: str | None, submissions: Sequence[JobSubmission]
    ) -> Outcomes:
        """Create up to 1000 jobs; each is made or refused by itself.

        Raises:
            Unprocessable: They are too many.
        """
        if len(submissions) > BATCH:
            raise Unprocessable(f"{len(submissions)} submissions are too many at once: send at most {BATCH}")

        async def one(submission: JobSubmission) -> Submitted | Problem:
            try:
                return await self.submit(caller, namespace, submission)
            except Problem as problem:
                return problem
            except Exception:  # noqa: BLE001 - whatever it is, the others are made, and the caller hears of those
                _LOG.exception("a submission of a batch failed")
                return Internal("something went wrong in the gateway; its log says what")

        return await asyncio.gather(*map(one, submissions))

    def _namespace(self, namespace: str | None, submission: JobSubmission) -> str:
        if namespace is not None and submission.namespace not in {None, namespace}:
            raise Unprocessable(
                f"the job is to be in the namespace {submission.namespace!r}, and the request is for {namespace!r}: "
                "leave one of them out",
                errors=[FieldError("/namespace", f"leave it out, or write {namespace!r}")],
            )
        where = namespace or submission.namespace or self._default_namespace
        if len(where) > NAMESPACE_LIMIT or not _NAMESPACE.fullmatch(where):
            raise Unprocessable(
                "this is no name of a namespace: write lower-case letters, digits and '-'",
                errors=[FieldError("/namespace", "this is no name of a namespace")],
            )
        return where

    def _check_covered(self, namespace: str) -> None:
        if not self._jobs.covers(namespace):
            raise NotFound(
                f"the operator does not serve the namespace {namespace!r}: use {', '.join(self._jobs.namespaces)}, or "
                "have it added to watchNamespaces of the chart"
            )

    async def _repeated(self, caller: Identity, namespace: str, name: str, *, asked: str, given: bool) -> Submitted:
        """Return the job of an earlier request with the same key."""
        row = self._jobs.get((namespace, name))
        found = row.raw() if row is not None else await self._read(namespace, name)
        if is_repeated(found, caller=caller.name, asked=asked):
            return Submitted(job_view(found), created=False)
        if given:
            raise Conflict(f"a job {name!r} exists already in the namespace {namespace!r}: choose another name")
        sentence = "this Idempotency-Key was used for another request: send a new key with a new request"
        raise Unprocessable(sentence, errors=[FieldError("header/Idempotency-Key", sentence)])

    # --- reading ---

    async def get(self, caller: Identity, ref: JobRef) -> JobView:
        """Return a job. Needs `get`.

        Raises:
            Forbidden: The caller may not.
            NotFound: There is none.
            Unavailable: This replica has not read the jobs yet.
        """
        return job_view((await self._find(caller, ref, "get")).raw())

    async def list(self, caller: Identity, query: JobQuery) -> JobPage:
        """Return a page of jobs. Needs `list`, for all namespaces if the query names none.

        A page has fewer jobs than asked for when they are large (`PAGE_BYTES`); `next` goes on after the last of them.

        Raises:
            Forbidden: The caller may not.
            Unavailable: This replica has not read the jobs yet.
        """
        rows = await self._rows(caller, query, "list")
        found = await select(rows, query)
        shown = fitting(found.rows)
        more = found.more or len(shown) < len(found.rows)
        items = []
        for number, row in enumerate(shown, start=1):
            items.append(job_view(row.raw()))
            if number % _VIEWS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        return JobPage(
            items=items,
            total=found.total,
            limit=query.limit,
            offset=query.offset,
            next=query.cursor_after(shown[-1]) if more and shown else None,
        )

    async def statistics(self, caller: Identity, query: JobQuery) -> Statistics:
        """Count jobs. Needs `list`.

        Raises:
            Forbidden: The caller may not.
            Unavailable: This replica has not read the jobs yet.
        """
        rows = await self._rows(caller, query, "list")
        tally = Tally(window=query.window, wall=self._wall())
        matches = query.matcher()
        for start in range(0, len(rows), BREATH):
            tally.add(filter(matches, rows[start : start + BREATH]))
            await asyncio.sleep(0)
        return tally.result()

    async def explain(self, caller: Identity, ref: JobRef) -> ExplanationView:
        """Say what a job waits for. Needs `get`; who may `list` the workers is told of them, too.

        Raises:
            Forbidden: The caller may not.
            NotFound: There is none.
            Unavailable: This replica has not read the jobs yet.
        """
        return await self._explain(caller, (await self._find(caller, ref, "get")).raw())

    async def watch(
        self, caller: Identity, query: JobQuery, *, since: str | None = None
    ) -> AsyncGenerator[Change, None]:
        """Follow jobs: those that are there, `synced`, and then every change. Needs `watch`.

        Args:
            caller: Looked at again every minute; the stream ends with `Forbidden` when the right is gone.
            query: Namespace, type, pool, labels, status and times; the rest of it does not matter. A job that ceases to
                match is not announced.
            since: Position of the last change that was read (`Change.id`).

        Raises:
            Forbidden: The caller may not, or not any more.
            TooManyRequests: As many streams are open as may be, or as the caller may have.
            TooSlow: Changes came faster than they were read.
            Unavailable: This replica has not read the jobs yet, or the API server is away and cannot say whether it
                knows the position.
        """
        await self._rows(caller, query, "watch")

        async def look_again() -> None:
            await self._access.require(caller, "watch", namespace=query.namespace)

        audience = Audience(
            namespace=query.namespace,
            scopes=self._jobs.scopes(query.namespace),
            matches=query.matcher(),
            look_again=look_again,
            caller=None if caller == ANONYMOUS else caller.name,
        )
        async with aclosing(self._jobs.changes.follow(audience, since)) as changes:
            try:
                async for change in changes:
                    yield change
            except kube.KubeError as error:
                raise from_kube(error) from error

    def _check_synced(self) -> None:
        if not self._jobs.synced:
            raise Unavailable("this replica has not read the jobs yet: ask again in a moment", retry_after=1.0)

    async def _rows(self, caller: Identity, query: JobQuery, verb: str) -> Sequence[Row]:
        """Return the jobs of the query's namespace, if the caller may see them."""
        namespace = query.namespace
        if namespace is not None:
            await self._access.require(caller, verb, namespace=namespace)
            self._check_covered(namespace)
        elif not await self._access.permits(caller, verb, namespace=None):
            raise Forbidden(
                f"{caller.name!r} may not {verb} the jobs of all namespaces: name one (namespace=...), or get that "
                "right by a ClusterRoleBinding"
            )
        self._check_synced()
        return self._jobs.ordered(namespace)

    async def _find(self, caller: Identity, ref: JobRef, verb: str) -> Row:
        """Return a job, if the caller may do that with it."""
        if ref.namespace:
            await self._access.require(caller, verb, namespace=ref.namespace)
            self._check_covered(ref.namespace)
        self._check_synced()
        row = await self._jobs.find(ref.key)
        if row is None:
            where = (
                "look at its namespace with GET /api/jobs?namespace=..." if ref.namespace else "name one that exists"
            )
            raise NotFound(f"there is no job '{ref}': it may have been deleted after its end; {where}")
        if not ref.namespace and not await self._access.permits(caller, verb, namespace=row.namespace):
            # Where it is, the caller has not said, and is not told.
            raise Forbidden(f"{caller.name!r} may not {verb} this job: get the right in its namespace")
        return row

    # --- changing ---

    async def cancel(self, caller: Identity, ref: JobRef) -> JobView:
        """Ask for the end of a job; again and again is fine. Needs `patch`.

        Raises:
            Conflict: It is over, and not by a cancel.
            Problem: As `get`.
        """
        return await self._change(caller, ref, wishes.cancel)

    async def retry(self, caller: Identity, ref: JobRef) -> JobView:
        """Have a job run again; while one retry is asked for and not yet taken up, another is the same. Needs `patch`.

        Raises:
            Conflict: It was cancelled, or is being deleted.
            Problem: As `get`.
        """
        return await self._change(caller, ref, wishes.retry)

    async def suspend(self, caller: Identity, ref: JobRef) -> JobView:
        """Let no attempt start. Needs `patch`.

        Raises:
            Conflict: It is over.
            Problem: As `get`.
        """
        return await self._change(caller, ref, wishes.suspend)

    async def resume(self, caller: Identity, ref: JobRef) -> JobView:
        """Let attempts start again. Needs `patch`.

        Raises:
            Problem: As `get`.
        """
        return await self._change(caller, ref, wishes.resume)

    async def delete(self, caller: Identity, ref: JobRef) -> None:
        """Delete a job, whatever it does. Needs `delete`.

        Raises:
            Problem: As `get`.
        """
        row = await self._find(caller, ref, "delete")
        uid = row.uid
        for _ in range(TRIES):
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
            try:
                await self._requests.delete(row.namespace, row.name, orjson.dumps(body))
                break
            except kube.NotFound:
                break  # it is gone
            except kube.Conflict as error:
                # It is gone, and another one has its name, which is the one that whoever gave the name means.
                if not ref.namespace:
                    raise NotFound(f"the job '{ref}' has just been deleted") from error
            except kube.KubeError as error:
                raise from_kube(error) from error
            try:
                uid = (await self._read(row.namespace, row.name))["metadata"]["uid"]
            except NotFound:
                break
        else:
            raise Unavailable("others make jobs of this name all the time: try again", retry_after=1.0)
        for known in {row.uid, uid}:
            await self._jobs.gone(known)

    async def _change(self, caller: Identity, ref: JobRef, decide: Callable[[RawJob], wishes.Spec | None]) -> JobView:
        row = await self._find(caller, ref, "patch")
        job, fresh = row.raw(), False
        for _ in range(TRIES):
            try:
                change = decide(job)
            except Conflict:
                if fresh:
                    raise
                change = None
            if change is None and fresh:
                return job_view(job)
            if change is not None:
                try:
                    return await self._patch(row, job, change)
                except kube.NotFound:
                    break
                except kube.Conflict:
                    pass  # somebody wrote first: decide on that
                except kube.KubeError as error:
                    raise from_kube(error) from error
            # Whoever is told that there is nothing to do, or no way, is told so by the API server's own word.
            found = await self._read(row.namespace, row.name)
            if found["metadata"]["uid"] != row.uid:
                break
            job, fresh = found, True
        else:
            raise Unavailable("others write to this job all the time: try again", retry_after=1.0)
        raise NotFound(f"the job '{ref}' has just been deleted")

    async def _read(self, namespace: str, name: str) -> RawJob:
        try:
            return cast("RawJob", await self._requests.read(namespace, name))
        except kube.KubeError as error:
            raise from_kube(error) from error

    async def _patch(self, row: Row, job: RawJob, change: wishes.Spec) -> JobView:
        version = {"uid": row.uid, "resourceVersion": job["metadata"]["resourceVersion"]}
        body = orjson.dumps({"metadata": version, "spec": change})
        answer = await self._requests.patch(row.namespace, row.name, body)
        view = job_view(cast("RawJob", answer))
        self._jobs.put(answer)
        return view

    async def _explain(self, caller: Identity, job: RawJob) -> ExplanationView:
        # Its sentences name workers and the pools that they serve: to those alone who may list them.
        workers_known = await self._access.permits(
            caller, "list", namespace=self._cluster.namespace, resource=WORKER_PLURAL
        )
        found = await self._explainer.explain(job, wall=self._wall(), workers_known=workers_known)
        return explanation_view(found)
