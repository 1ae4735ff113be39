"""The deadlines of the tests themselves: they follow the load of the machine."""

import os
import time

import pytest
import pytest_timeout
from tests.conftest import pytest_timeout_set_timer
from tests.support.deadlines import Deadline, load_factor


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load average of ten times the number of cores."""
    monkeypatch.setattr(os, "getloadavg", lambda: (10.0 * (os.cpu_count() or 1), 0.0, 0.0))


def test_a_deadline_passes_on_time_on_a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    deadline = Deadline(0.01)

    time.sleep(0.02)

    assert deadline.has_passed()


def test_a_deadline_waits_longer_on_a_busy_machine(busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    deadline = Deadline(1)

    now = 109.0
    assert not deadline.has_passed()

    now = 111.0
    assert deadline.has_passed()


def test_the_time_limit_of_a_test_follows_the_load(
    request: pytest.FixtureRequest, busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(
        pytest_timeout, "pytest_timeout_set_timer", lambda _item, settings: limits.append(settings.timeout)
    )
    settings = pytest_timeout.Settings(180.0, "signal", False, False)

    pytest_timeout_set_timer(request.node, settings)

    assert limits == [180.0 * load_factor()]
    assert load_factor() == 10.0
