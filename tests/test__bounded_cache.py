"""The one eviction rule."""

from dpop_middleware._bounded_cache import BoundedCache


def cache(*, entries: int = 3, size: int = 10_000) -> BoundedCache[str, str]:
    return BoundedCache(max_entries=entries, max_bytes=size)


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept = cache(entries=2)
    kept.put("a", "1", size=1)
    kept.put("b", "2", size=1)
    assert kept.get("a") == "1"
    kept.put("c", "3", size=1)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == ("1", None, "3", 2)


def test_bytes_are_bounded_and_given_back() -> None:
    kept = cache()
    kept.put("a", "1", size=4000)
    kept.put("b", "2", size=4000)
    kept.put("c", "3", size=4000)
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, "2", 2)
    assert 8000 < kept.bytes <= 10_000
    kept.put("b", "2", size=1)
    kept.discard("c")
    kept.discard("c")
    assert kept.bytes < 1000
    kept.discard("b")
    assert kept.bytes == 0


def test_what_is_larger_than_the_cache_pushes_nothing_out() -> None:
    kept = cache()
    kept.put("a", "1", size=1)
    kept.put("b", "2", size=10_000)
    assert (kept.get("a"), kept.get("b")) == ("1", None)
    kept.put("a", "another", size=10_000)
    assert (kept.get("a"), kept.bytes) == (None, 0)


def test_a_cache_of_no_size_keeps_nothing() -> None:
    for kept in (cache(entries=0), cache(size=0)):
        kept.put("a", "1", size=0)
        assert (len(kept), kept.bytes) == (0, 0)
