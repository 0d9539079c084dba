"""What imports leave behind, and the garbage collector."""

from __future__ import annotations

import gc

import pytest

from controller.chassis.collecting import kept_from_collector


class _Object:
    pass


def test_what_is_made_meanwhile_is_not_looked_at_and_what_comes_after_it_is():
    try:
        with kept_from_collector():
            assert not gc.isenabled()
            before = _Object()
        assert gc.isenabled()
        after = _Object()
        looked_at = gc.get_objects()
        assert not any(each is before for each in looked_at)
        assert any(each is after for each in looked_at)
    finally:
        gc.unfreeze()


def test_an_import_that_fails_leaves_the_collector_as_it_was():
    try:
        with pytest.raises(ImportError), kept_from_collector():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
