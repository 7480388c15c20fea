"""Fixtures of tests/data that tests of importing share."""

from tests.data.conftest import make_dataset

__all__ = ["make_dataset"]
