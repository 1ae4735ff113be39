"""Which tests run in one of pytest-xdist's workers: those that share something dear, together and first."""

from typing import Any

import pytest

TOGETHER = (
    "tests/test_systemd.py",  # one box: it has the network of its host, and its page and its metrics have ports there
    "tests/test_postgres_faults.py",  # a server that may be stopped
    "tests/test_postgres_network.py",
    "tests/test_install.py",  # the wheels of all that soulspot needs
    "tests/test_web_browser.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from xdist.scheduler import LoadScopeScheduling

    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _together
    return scheduling


def _together(test: str) -> str:
    """Return what a worker gets at a time: all tests of a file, or one alone."""
    file = test.partition("::")[0]
    return file if file in TOGETHER else test
