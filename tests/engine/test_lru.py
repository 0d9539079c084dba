"""A cache of bounded bytes."""

from worker.engine.lru import ByteLru


def test_what_was_not_asked_for_the_longest_goes_first():
    cache = ByteLru(10)
    for name in "abc":
        cache.put(name, name.upper(), 3)
    assert cache.get("a") == "A"
    cache.put("d", "D", 3)
    assert [cache.get(name) for name in "abcd"] == ["A", None, "C", "D"]
    assert (cache.num_bytes, len(cache)) == (9, 3)
    assert (cache.queries, cache.hits) == (5, 4)


def test_a_value_larger_than_the_cache_is_not_kept_and_drives_nothing_out():
    cache = ByteLru(10)
    cache.put("a", 1, 10)
    cache.put("b", 2, 11)
    assert (cache.get("a"), cache.get("b")) == (1, None)
    assert ByteLru(0).get("a") is None


def test_a_new_value_of_a_name_takes_the_place_of_the_old():
    cache = ByteLru(10)
    cache.put("a", 1, 6)
    cache.put("a", 2, 7)
    assert (cache.get("a"), cache.num_bytes) == (2, 7)


def test_clearing_says_what_it_freed():
    cache = ByteLru(10)
    cache.put("a", 1, 6)
    assert cache.clear() == 6
    assert (cache.num_bytes, cache.get("a"), cache.clear()) == (0, None, 0)
