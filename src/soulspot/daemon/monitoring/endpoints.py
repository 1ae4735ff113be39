"""Sets up the HTTP endpoints, the metrics textfile and the hooks from the settings."""

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
    """Raise ConfigError if the metrics settings cannot be used."""
    wanted = [f"metrics.{name}" for name in ("listen", "textfile") if getattr(settings.metrics, name)]
    missing = [package for package in ("h11", "prometheus_client") if find_spec(package) is None]
    if wanted and missing:
        raise ConfigError(f"{wanted[0]} needs {missing[0]}: install it with pip install 'soulspot[metrics]'")
    folder = os.path.dirname(settings.metrics.textfile)
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"metrics.textfile: the folder {folder} {'is not writable' if os.path.isdir(folder) else 'does not exist'}:"
            " create it, grant this user write access, or check whether the unit needs the drop-in textfile.conf"
        )


@asynccontextmanager
async def serve_monitoring(state: DaemonState) -> AsyncIterator[None]:
    """Serve /metrics, /livez and /readyz at `metrics.listen` until the block ends.

    Raises:
        ConfigError: the metrics settings cannot be used.

    """
    check(state.settings)
    if not (address := state.settings.metrics.listen):
        yield
        return
    from soulspot.daemon.monitoring import probes
    from soulspot.daemon.monitoring.metrics import Metrics
    from soulspot.infrastructure.net import http_server

    metrics = Metrics(state, with_process=True)

    async def scrape(accepted: str) -> http_server.HttpReply:
        return http_server.HttpReply(HTTPStatus.OK, *await metrics.text(accepted))

    routes: http_server.Routes = {
        "/metrics": scrape,
        "/livez": lambda _accepted: probes.livez(state),
        "/readyz": lambda _accepted: probes.readyz(state),
    }
    control = state.settings.control  # the same users may connect as to the control socket
    async with AsyncExitStack() as serving:
        try:
            served = http_server.serve(address, routes, mode=int(control.mode, 8), group=control.group)
            await serving.enter_async_context(served)
        except OSError as error:
            raise ConfigError(
                f"cannot listen at {address} ({why(error)}): set metrics.listen to another address, or check whether"
                " the unit needs the drop-in loopback.conf"
            ) from error
        yield


async def write_textfile(state: DaemonState) -> None:
    """Write the metrics to `metrics.textfile`, if it is set, until cancelled."""
    settings = state.settings.metrics
    if settings.textfile:
        from soulspot.daemon.monitoring.metrics import Metrics

        metrics = Metrics(state, with_process=False)  # node_exporter has its own process metrics
        await metrics.write_to(settings.textfile, settings.textfile_interval)


@asynccontextmanager
async def subscribe_hooks(
    state: DaemonState, run: str, roots: Collection[Root]
) -> AsyncIterator[Sequence[tuple[Hook, Subscription]]]:
    """Yield the hooks of the settings, each with a subscription that ends with the block.

    After a reload, a hook takes over what its predecessor has not delivered.
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
            logger.warning("the hook %s did not get the last %d changes", hook.place, hook.waiting)


def _hooks_of(settings: Settings) -> Sequence[Hook]:
    on_batch, hooks = settings.on_batch, []
    limits = {"within": on_batch.timeout, "quiet": on_batch.quiet, "longest": on_batch.longest}
    if on_batch.command:
        hooks.append(command_hook(on_batch.command, **limits, paths=on_batch.paths))
    if url := on_batch.url.get_secret_value():
        headers = [header.get_secret_value() for header in on_batch.headers]
        hooks.append(url_hook(url, headers, **limits, paths=on_batch.paths))
    return hooks
