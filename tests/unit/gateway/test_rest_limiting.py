"""Token buckets, by a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from distriqueue.gateway.rest.limiting import RateLimiter


def test_a_burst_passes_and_then_the_rate() -> None:
    limiter = RateLimiter(rate=10, burst=3)
    assert [limiter.take("ann", mono=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("ann", mono=0.0) == 0.1
    assert limiter.take("ann", mono=0.1) == 0.0
    assert limiter.take("ann", mono=0.1) > 0


def test_callers_do_not_share() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.take("ann", mono=0.0) == 0.0
    assert limiter.take("bob", mono=0.0) == 0.0
    assert limiter.take("ann", mono=0.0) > 0


def test_a_pause_fills_no_more_than_the_bucket() -> None:
    limiter = RateLimiter(rate=100, burst=2)
    limiter.take("ann", mono=0.0)
    passed = [limiter.take("ann", mono=1000.0) == 0.0 for _ in range(5)]
    assert passed == [True, True, False, False, False]


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(rate=0, burst=1)
    assert not any(limiter.take("ann", mono=0.0) for _ in range(1000))
    assert len(limiter) == 0


def test_memory_is_bounded_and_the_longest_silent_leaves() -> None:
    limiter = RateLimiter(rate=0.001, burst=1, entries=2)
    for name in ("ann", "bob", "ann", "cat"):
        limiter.take(name, mono=0.0)
    assert len(limiter) == 2
    assert limiter.take("ann", mono=0.0) > 0
    assert limiter.take("bob", mono=0.0) == 0.0


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=60), st.integers(1, 20), st.floats(0.1, 100))
def test_never_more_than_burst_and_rate_allow(pauses: list[float], burst: int, rate: float) -> None:
    limiter = RateLimiter(rate=rate, burst=burst)
    mono = 0.0
    passed = 0
    for pause in pauses:
        mono += pause
        wait = limiter.take("ann", mono=mono)
        passed += wait == 0.0
        assert passed <= burst + rate * mono + 1e-6
        assert wait <= 1 / rate + 1e-9
