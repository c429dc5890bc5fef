"""The markers of the saver's tests are known here too: those tests are checks here."""

from tests.saver.conftest import pytest_configure

__all__ = ["pytest_configure"]
