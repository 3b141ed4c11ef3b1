"""The ledger of reports: each is published until the broker confirms it, and repeated until the leader settles it.

Guarantees: a report leaves the ledger only when it is settled, or with the process after the broker confirmed it. It
survives reconnects and the loss of the lease, under the incarnation that earned it: reports are judged by grant.
Pure: time is passed in, in seconds of one monotonic clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from distriqueue_protocol.messages import GrantId, HeldGrant, Report

RETRY_FIRST: Final = 0.2
"""Seconds until a report that was not confirmed is published again; doubles each time."""
RETRY_MOST: Final = 5.0
RESEND_FIRST: Final = 5.0
"""Seconds after the first confirmation until an unsettled report is sent again."""
RESEND_NEXT: Final = 10.0
SCAN_SECONDS: Final = 0.1
"""Every entry is looked at no more often."""


@dataclass(slots=True)
class Entry:
    """A report and how far it has come."""

    report: Report
    held: HeldGrant
    due: float
    in_flight: bool = False
    confirmed: bool = False
    failures: int = 0


class ReportLedger:
    """All reports that are not settled yet."""

    def __init__(self) -> None:
        self._entries: dict[GrantId, Entry] = {}
        self._fresh: list[Entry] = []
        self._unconfirmed = 0
        self._scan_at = float("-inf")

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, grant: GrantId) -> bool:
        return grant in self._entries

    @property
    def unconfirmed(self) -> int:
        """How many reports the broker has not confirmed yet, which keeps a leaving worker here."""
        return self._unconfirmed

    def held(self) -> tuple[HeldGrant, ...]:
        """The grants of all entries, as a heartbeat lists them."""
        return tuple(entry.held for entry in self._entries.values())

    def incarnations(self) -> set[str]:
        """Whose reports these are: under these names the leader answers."""
        return {entry.report.incarnation for entry in self._entries.values()}

    def add(self, report: Report, held: HeldGrant, now: float) -> None:
        """Take custody of a report."""
        entry = Entry(report, held, due=now)
        self._entries[report.grant] = entry
        self._fresh.append(entry)
        self._unconfirmed += 1

    def take_fresh(self) -> Iterator[Report]:
        """The reports added since the last call; they are in flight from now on. Cheap, for every turn of the loop."""
        fresh, self._fresh = self._fresh, []
        for entry in fresh:
            if not entry.in_flight:
                entry.in_flight = True
                yield entry.report

    def take_due(self, now: float) -> Iterator[Report]:
        """All reports that are due for publishing; they are in flight from now on."""
        if now < self._scan_at:
            return
        self._scan_at = now + SCAN_SECONDS
        for entry in self._entries.values():
            if not entry.in_flight and entry.due <= now:
                entry.in_flight = True
                yield entry.report

    def confirm(self, grant: GrantId, now: float) -> None:
        """The broker has it on disk."""
        entry = self._entries.get(grant)
        if entry is None:
            return
        entry.in_flight = False
        entry.failures = 0
        entry.due = now + (RESEND_NEXT if entry.confirmed else RESEND_FIRST)
        if not entry.confirmed:
            entry.confirmed = True
            self._unconfirmed -= 1

    def fail(self, grant: GrantId, now: float) -> None:
        """The broker did not take it, or nobody knows."""
        entry = self._entries.get(grant)
        if entry is None or not entry.in_flight:
            return
        entry.in_flight = False
        entry.due = now + min(RETRY_FIRST * 2**entry.failures, RETRY_MOST)
        entry.failures = min(entry.failures + 1, 16)

    def reconnect(self, now: float) -> None:
        """The connection is gone: what was in flight is unknown, and what was never confirmed is due at once."""
        self._scan_at = now
        for entry in self._entries.values():
            entry.in_flight = False
            entry.failures = 0
            if not entry.confirmed:
                entry.due = now

    def settle(self, grant: GrantId) -> bool:
        """Forget a report that the leader has written or refused; False when it is not here (any more)."""
        entry = self._entries.pop(grant, None)
        if entry is None:
            return False
        entry.in_flight = True  # so that `take_fresh` passes it over
        if not entry.confirmed:
            self._unconfirmed -= 1
        return True
