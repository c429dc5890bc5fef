"""`--rewrite` writes what happened into the transcripts; the difference is reviewed as text."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="update tests/scenarios/*.txt")
