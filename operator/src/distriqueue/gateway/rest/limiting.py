"""How often an identity may ask: a token bucket each, in bounded memory.

Guarantees: at most `entries` buckets exist; the one that was used longest ago leaves first, which is full again unless
thousands of identities ask at once. Nothing here reads a clock.
"""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """Buckets of tokens, by a caller's name.

    Args:
        rate: Tokens that come back in a second; 0: no limit.
        burst: Tokens that a bucket holds.
        entries: Most buckets.
    """

    def __init__(self, *, rate: float, burst: int, entries: int = 10_000) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._entries = entries
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Return how many buckets there are."""
        return len(self._buckets)

    def take(self, name: str, *, mono: float) -> float:
        """Take a token.

        Args:
            name: The caller's.
            mono: The moment, by the monotonic clock.

        Returns:
            0 when it was there, or else the seconds until it will be.
        """
        if not self._rate:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, mono)
            if len(self._buckets) > self._entries:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
            bucket.tokens = min(self._burst, bucket.tokens + (mono - bucket.at) * self._rate)
            bucket.at = mono
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / self._rate
