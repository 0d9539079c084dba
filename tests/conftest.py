"""Fixtures of several folders of tests."""

from tests.demo_fleet import demo_fleet

__all__ = ["demo_fleet"]
