"""Sets up what the settings ask for: the HTTP endpoints, the textfile of metrics, the hooks."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from http import HTTPStatus
from importlib.util import find_spec

from soulspot.config import Settings
from soulspot.config.sources import why
from soulspot.daemon.events import Subscription
from soulspot.daemon.hooks.hook import HOOK_BUFFER, Hook, Sender, command_hook, url_hook
from soulspot.daemon.state import DaemonState
from soulspot.errors import ConfigError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.walker import Root

logger = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Raise ConfigError if the settings of the metrics cannot be used."""
    wanted = [f"metrics.{name}" for name in ("listen", "textfile") if getattr(settings.metrics, name)]
    missing = [package for package in ("h11", "prometheus_client") if find_spec(package) is None]
    if wanted and missing:
        msg = f"{wanted[0]} needs {missing[0]}: install it with pip install 'soulspot[metrics]'"
        raise ConfigError(msg)
    if settings.metrics.textfile:
        _check_folder(settings.metrics.textfile)


@asynccontextmanager
async def serve_monitoring(state: DaemonState) -> AsyncIterator[None]:
    """Serve /metrics, /livez and /readyz at `metrics.listen` until the block ends.

    Raises:
        ConfigError: the settings of the metrics cannot be used.

    """
    check(state.settings)
    if not (place := state.settings.metrics.listen):
        yield
        return
    from soulspot.daemon.monitoring import probes
    from soulspot.daemon.monitoring.metrics import Metrics
    from soulspot.infrastructure.net import http_server
    from soulspot.infrastructure.net.http_server import HttpReply

    metrics = Metrics(state, with_process=True)

    async def scrape(accepted: str) -> HttpReply:
        return HttpReply(HTTPStatus.OK, *await metrics.text(accepted))

    routes: http_server.Routes = {
        "/metrics": scrape,
        "/livez": lambda _accepted: probes.livez(state),
        "/readyz": lambda _accepted: probes.readyz(state),
    }
    own = state.settings.control  # whoever may ask there may ask here
    async with AsyncExitStack() as serving:
        try:
            await serving.enter_async_context(http_server.serve(place, routes, mode=int(own.mode, 8), group=own.group))
        except OSError as error:
            msg = (
                f"nothing can listen at {place} ({why(error)}): set metrics.listen to another place, or see whether the"
                " unit needs the drop-in loopback.conf"
            )
            raise ConfigError(msg) from error
        yield


async def write_textfile(state: DaemonState) -> None:
    """Write the metrics to `metrics.textfile`, if it is set, until cancelled."""
    settings = state.settings.metrics
    if settings.textfile:
        from soulspot.daemon.monitoring.metrics import Metrics

        metrics = Metrics(state, with_process=False)  # node_exporter has such metrics of its own
        await metrics.write_to(settings.textfile, settings.textfile_interval)
    await asyncio.Event().wait()


@asynccontextmanager
async def subscribe_hooks(
    state: DaemonState, run: str, roots: Collection[Root]
) -> AsyncIterator[Sequence[tuple[Hook, Subscription]]]:
    """Yield the hooks of the settings, each with its subscription, which ends with the block.

    What a hook has not delivered by then goes to the one that replaces it after a reload.
    """
    before = {hook.kind: hook.undelivered for hook in state.hooks}
    sender = Sender(run, [path_to_text(root.path) for root in roots])
    state.hooks = _hooks_of(state.settings)
    with ExitStack() as subscriptions:
        for hook in state.hooks:
            hook.sender = sender
            if hook.kind in before:
                hook.requeue(before[hook.kind])
        yield [(hook, subscriptions.enter_context(state.feed.subscribe(HOOK_BUFFER))) for hook in state.hooks]


def warn_about_undelivered(state: DaemonState) -> None:
    for hook in state.hooks:
        if hook.waiting:
            logger.warning("the hook %s was not told of the last %d changes", hook.place, hook.waiting)


def _hooks_of(settings: Settings) -> Sequence[Hook]:
    asked = settings.on_batch
    hooks = []
    if asked.command:
        hooks.append(
            command_hook(
                asked.command, within=asked.timeout, quiet=asked.quiet, longest=asked.longest, paths=asked.paths
            )
        )
    if url := asked.url.get_secret_value():
        headers = [header.get_secret_value() for header in asked.headers]
        hooks.append(
            url_hook(url, headers, within=asked.timeout, quiet=asked.quiet, longest=asked.longest, paths=asked.paths)
        )
    return hooks


def _check_folder(textfile: str) -> None:
    folder = os.path.dirname(textfile)
    if os.access(folder, os.W_OK | os.X_OK):
        return
    why = "it cannot be written by this process" if os.path.isdir(folder) else "it is not there"
    msg = (
        f"metrics.textfile is to be in {folder}, and {why}: create it, give this user the right to write it, or see"
        " whether the unit needs the drop-in textfile.conf"
    )
    raise ConfigError(msg)
