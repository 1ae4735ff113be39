"""The settings of outputs: metrics for a monitor, batches for a server or script, the web page."""

import re
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from soulspot.config.field_types import Number, Section, Texts, absolute_text, not_boolean, texts
from soulspot.infrastructure.net.sockets import is_this_machine

SECRETS: Final = frozenset(("on_batch.url", "on_batch.headers"))
"""Settings that may hold a token anywhere in their text: no command shows them."""
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: *[\x20-\x7e]*")


def _listening(place: str) -> str:
    """Check where to listen: "" for nowhere, the absolute path of a socket, or a loopback address."""
    if not place or place.startswith(("/", "~")):
        return absolute_text(place)
    host, _, port = place.rpartition(":")
    if not is_this_machine(host) or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError("a loopback address and port such as 127.0.0.1:9842, or the absolute path of a socket")
    return place


def checked_address(place: str) -> str:
    """Check where to listen: "" for nowhere, the absolute path of a socket, or an IP address and port."""
    if not place or place.startswith(("/", "~")):
        return absolute_text(place)
    host, _, port = place.rpartition(":")
    try:
        ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        is_port = port.isascii() and port.isdecimal() and int(port) < 1 << 16
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError(
            "an IP address and port such as 127.0.0.1:8337 or [::1]:8337, or the absolute path of a socket"
        )
    return place


def _prom_file(path: str) -> str:
    if path and not path.endswith(".prom"):
        raise ValueError("the path of a file that ends in .prom: node_exporter reads no other")
    return absolute_text(path)


def _url(url: SecretStr) -> SecretStr:
    given = url.get_secret_value()
    try:
        parts = urlsplit(given)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, an unclosed bracket
        is_one = False
    if given and (not is_one or not given.isascii() or re.search(r"[\x00-\x20]", given)):
        raise ValueError("a URL such as https://host/path, in ASCII without spaces")
    return url


def _headers(headers: list[SecretStr]) -> list[SecretStr]:
    if not all(_HEADER.fullmatch(header.get_secret_value()) for header in headers):
        raise ValueError('a list of headers such as "X-Token: secret", in ASCII')
    return headers


class MetricsSettings(Section):
    listen: Annotated[str, AfterValidator(_listening)] = Field(
        default="",
        description="Address that serves `/metrics`, `/livez` and `/readyz`: `127.0.0.1:PORT`, or the path of a socket"
        " with the mode and group of the control socket; none by default. Needs `soulspot[metrics]`; under the shipped"
        " unit, a port also needs the drop-in `loopback.conf`.",
    )
    textfile: Annotated[str, AfterValidator(_prom_file)] = Field(
        default="",
        description="A file `NAME.prom` to write the metrics to, for node_exporter's textfile collector. Needs"
        " `soulspot[metrics]`, and under the shipped unit the drop-in `textfile.conf`.",
    )
    textfile_interval: Number = Field(
        default=15.0, ge=1, le=3600, description="Seconds between two writes of this file."
    )


class OnBatchSettings(Section):
    command: Texts = Field(
        default_factory=list,
        description="A program and its arguments, run without a shell after each batch of changes, with the batch as"
        " JSON on standard input. Under the shipped unit it runs in the sandbox of the service.",
    )
    url: Annotated[SecretStr, AfterValidator(_url)] = Field(
        default=SecretStr(""),
        description="The URL to POST the same JSON to. Under the shipped unit it needs the drop-in"
        " `loopback.conf`, or `network-hooks.conf` for another machine.",
    )
    headers: Annotated[list[SecretStr], NoDecode, BeforeValidator(texts), AfterValidator(_headers)] = Field(
        default_factory=list, description='Headers to send with it, such as `["X-Token: secret"]`.'
    )
    quiet: Number = Field(default=10.0, ge=0, le=3600, description="Seconds without a change that complete a batch.")
    longest: Number = Field(
        default=300.0, ge=1, le=86400, description="Seconds after which a batch is delivered even if changes continue."
    )
    timeout: Number = Field(
        default=30.0, gt=0, le=3600, description="Seconds that the program or the answer to the POST may take."
    )
    paths: Annotated[int, BeforeValidator(not_boolean)] = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Maximum number of changed files, and of folders, that one batch names.",
    )


class WebSettings(Section):
    listen: Annotated[str, AfterValidator(checked_address)] = Field(
        default="",
        description="Address on which `soulspot watch` serves the web page: `127.0.0.1:8337`, or the path of a socket"
        " with the mode and group of the control socket; none by default. Needs `soulspot[web]`. Under systemd prefer"
        " `soulspot-web.socket`: a port here needs the drop-in `loopback.conf`.",
    )
    hosts: Texts = Field(
        default_factory=list,
        description="Host names under which the page answers, besides those of the loopback interface, such as"
        ' `["music.example"]` behind a proxy.',
    )
