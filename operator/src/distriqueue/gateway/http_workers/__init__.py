"""HTTP workers: a session in one replica of the gateway keeps custody for a worker that speaks HTTP alone."""

from distriqueue.gateway.http_workers.desks import HttpWorkers
from distriqueue.gateway.http_workers.passages import DIRECT, FORWARDED_HEADER, Passage

__all__ = ["DIRECT", "FORWARDED_HEADER", "HttpWorkers", "Passage"]
