"""Keeps tests that share something expensive in one of pytest-xdist's workers, and runs them first."""

from typing import Any

import pytest

ONE_WORKER = (
    "tests/test_systemd.py",  # one container, which uses ports of the host
    "tests/test_postgres_faults.py",  # a server that the tests stop
    "tests/test_postgres_network.py",
    "tests/test_install.py",  # the wheels of all dependencies
    "tests/test_web_browser.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from xdist.scheduler import LoadScopeScheduling

    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _scope
    return scheduling


def _scope(test: str) -> str:
    """Return what xdist hands to a worker at a time: all tests of a file, or one test."""
    file = test.partition("::")[0]
    return file if file in ONE_WORKER else test
