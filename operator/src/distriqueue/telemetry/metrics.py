"""The operator's metrics, on an injected registry: one class holds them all.

Guarantees: names and labels are part of the product (docs/metrics.md); no label has values that users choose freely,
but for the pool, whose number is bounded by the pools that exist. `scheduler_is_leader` and `scheduler_tasks_total`
keep the names that dashboards of task schedulers look for.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from distriqueue.api.conditions import AttemptReason
from distriqueue.api.phases import AttemptOutcome, JobPhase, WorkerPhase
from distriqueue.core.jobs import Job
from distriqueue.core.leader import Leader

LOSSES = frozenset(AttemptReason)
"""Reasons of lost attempts that are labels of their own: words of ours, never of users."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600)


class OperatorMetrics:
    """Everything that the operator counts; it is the `Observer` of the leader's decisions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self._finished = counter(
            "distriqueue_jobs_finished_total", "Jobs that reached a final phase.", "phase", "pool", "priority"
        )
        self._attempts = counter("distriqueue_attempts_total", "Attempts that ended.", "outcome")
        self._retries = counter("distriqueue_job_retries_total", "Attempts after which the job is tried again.")
        self._tasks = counter("scheduler_tasks_total", "Jobs that reached a final phase, by outcome.", "status")
        self._execution = Histogram(
            "distriqueue_job_execution_seconds",
            "How long handlers ran, by the worker's clock.",
            ["outcome"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._queueing = Histogram(
            "distriqueue_job_queue_seconds",
            "From a job's creation to the grant of its last attempt.",
            ["priority"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._in_progress = gauge("distriqueue_jobs_in_progress", "Jobs whose slot a grant holds.")
        self._retrying = gauge("distriqueue_jobs_retrying", "Jobs that wait for the time of their next attempt.")
        self._waiting = gauge("distriqueue_jobs_waiting", "Jobs that wait with the leader.", "pool", "priority")
        self._tickets_out = gauge(
            "distriqueue_tickets_out", "Tickets that the broker holds, by the leader's books.", "pool", "priority"
        )
        self._workers = gauge("distriqueue_workers", "Workers by phase.", "phase")
        self._leader = gauge("distriqueue_leader", "1 while this replica leads, else 0.")
        self._scheduler_leader = gauge("scheduler_is_leader", "1 while this replica leads, else 0.")
        self._epoch = gauge("distriqueue_leader_epoch", "The epoch of this replica's last term; 0 before the first.")
        self._takeover = gauge(
            "distriqueue_takeover_seconds", "From taking the Lease to the first grant allowed, in the last term."
        )
        self._terms = counter("distriqueue_leader_terms_total", "Terms that ended, by cause.", "cause")
        self._claims = counter("distriqueue_claims_total", "Claims answered, by answer.", "answer")
        self._tickets = counter("distriqueue_tickets_published_total", "Tickets given to the broker.", "kind")
        self._refused = counter("distriqueue_reports_refused_total", "Reports that were not accepted.", "reason")
        self._ignored = counter("distriqueue_messages_ignored_total", "Messages of workers ignored.", "reason")
        self._lost = counter("distriqueue_incarnations_lost_total", "Workers proven lost, by cause.", "reason")
        self._returned = counter(
            "distriqueue_slots_returned_total", "Grants that their worker never started, by its own heartbeat."
        )
        self._repeated = counter("distriqueue_status_writes_repeated_total", "Status writes decided again.", "reason")
        self._written = counter("distriqueue_status_writes_total", "Status writes that succeeded.")
        self._attempts_lost = counter("distriqueue_attempts_lost_total", "Attempts that were lost, by cause.", "reason")
        self._duplicates = counter(
            "distriqueue_attempts_duplicate_total", "Live attempts beside a higher one of the same job: stopped."
        )
        self._orphans = counter(
            "distriqueue_attempts_orphaned_total", "Live attempts whose job is over for them: stopped.", "reason"
        )
        self._jobs_lost = counter("distriqueue_jobs_lost_total", "Jobs that the auditor found in nobody's custody.")
        self._findings = counter(
            "distriqueue_audit_findings_total", "What the auditor found wrong in the leader's books.", "finding"
        )
        self._audits = counter("distriqueue_audit_rounds_total", "Times that the auditor looked at everything.")
        self._audit_age = gauge(
            "distriqueue_audit_age_seconds", "Since the auditor's last round, or since the term began; 0 in a standby."
        )
        self._events = counter("distriqueue_events_total", "Events, by what became of them.", "result")
        self._queues_replaced = counter(
            "distriqueue_queues_replaced_total", "Queues that answered nobody and were made anew."
        )
        self.broker_blocked = gauge(
            "distriqueue_broker_blocked", "1 while RabbitMQ has an alarm and takes no messages of this replica, else 0."
        )
        self.feed_age = gauge(
            "distriqueue_feed_last_event_age_seconds", "Seconds since the watch of jobs was last heard."
        )
        for value in (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.DEAD, JobPhase.CANCELLED):
            self._tasks.labels(value.lower())
        for outcome in AttemptOutcome:
            self._attempts.labels(outcome.value)
            self._execution.labels(outcome.value)

    # --- what the leader's decisions tell (core.observing.Observer) ----------------------------------------------

    def claim_answered(self, answer: str) -> None:
        """Count a claim."""
        self._claims.labels(answer).inc()

    def attempt_ended(self, job: Job, outcome: AttemptOutcome, *, reason: str, execution_seconds: float) -> None:
        """Count an attempt."""
        self._attempts.labels(outcome.value).inc()
        if outcome is AttemptOutcome.LOST:
            # An interrupted attempt is reported by its worker, and reasons of reports are words of users.
            self._attempts_lost.labels(reason if reason in LOSSES else "Other").inc()
        self._execution.labels(outcome.value).observe(execution_seconds)
        if job.phase == JobPhase.RETRYING:
            self._retries.inc()

    def job_ended(self, job: Job, phase: str, *, queue_seconds: float) -> None:
        """Count a job."""
        self._finished.labels(phase, job.pool, job.priority.value).inc()
        self._tasks.labels(phase.lower()).inc()
        self._queueing.labels(job.priority.value).observe(queue_seconds)

    def ticket_published(self, *, again: bool) -> None:
        """Count a ticket."""
        self._tickets.labels("again" if again else "first").inc()

    def report_refused(self, reason: str) -> None:
        """Count a refused report."""
        self._refused.labels(reason).inc()

    def message_ignored(self, reason: str) -> None:
        """Count an ignored message."""
        self._ignored.labels(reason).inc()

    def incarnation_lost(self, reason: str) -> None:
        """Count a lost worker."""
        self._lost.labels(reason).inc()

    def slot_returned(self) -> None:
        """Count a grant that was never started."""
        self._returned.inc()

    def write_repeated(self, reason: str) -> None:
        """Count a write that was decided again."""
        self._repeated.labels(reason).inc()

    def attempt_duplicate(self) -> None:
        """Count an attempt that was stopped because a higher one lives."""
        self._duplicates.inc()

    def attempt_orphaned(self, reason: str) -> None:
        """Count an attempt that was stopped because its job is over for it."""
        self._orphans.labels(reason).inc()

    def custody_found(self, finding: str, *, lost: bool) -> None:
        """Count what the auditor found."""
        self._findings.labels(finding).inc()
        if lost:
            self._jobs_lost.inc()

    def audited(self) -> None:
        """Count a round of the auditor."""
        self._audits.inc()

    # --- what the program tells ----------------------------------------------------------------------------------

    def status_written(self) -> None:
        """Count a status write."""
        self._written.inc()

    def event(self, result: str) -> None:
        """Count an Event: `Created`, `Repeated`, `Dropped`, `Failed`."""
        self._events.labels(result).inc()

    def queue_replaced(self) -> None:
        """Count a queue that was made anew."""
        self._queues_replaced.inc()

    def term_began(self, epoch: int) -> None:
        """This replica has taken the Lease."""
        self._leader.set(1)
        self._scheduler_leader.set(1)
        self._epoch.set(epoch)

    def took_over(self, seconds: float) -> None:
        """The takeover is done."""
        self._takeover.set(seconds)

    def term_ended(self, cause: str) -> None:
        """This replica leads no longer; what only a leader knows is taken back."""
        self._leader.set(0)
        self._scheduler_leader.set(0)
        self._terms.labels(cause).inc()
        self._in_progress.set(0)
        self._retrying.set(0)
        self._waiting.clear()
        self._tickets_out.clear()
        self._workers.clear()
        self._audit_age.set(0)

    def sample(self, leader: Leader, *, mono: float) -> None:
        """Read the gauges off the leader's books.

        Args:
            leader: The term that is led.
            mono: The moment, by the monotonic clock.
        """
        self._audit_age.set(max(0.0, mono - leader.auditor.audited_at))
        self._in_progress.set(leader.held)
        self._retrying.set(leader.backlog.retrying)
        for (pool, priority), waiting, out in leader.backlog.lanes():
            self._waiting.labels(pool, priority.value).set(waiting)
            self._tickets_out.labels(pool, priority.value).set(out)
        counts = leader.workers_by_phase()
        for phase in WorkerPhase:
            self._workers.labels(phase.value).set(counts.get(phase.value, 0))
