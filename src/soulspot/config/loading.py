"""The settings: what there is to set, and where it is read from.

Later beats earlier: the defaults, /etc/soulspot/config.toml, the user's own config.toml, systemd's credentials, the
environment (SOULSPOT_ before the name, `__` between its parts), the folders of the command line. `--config FILE` or
$SOULSPOT_CONFIG takes the place of the two files. Nothing is created here, and nothing is passed over: a name that is
none of ours is an error.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ByteSize, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from soulspot.config.library_check import check_nesting
from soulspot.config.outlet_sections import SECRETS
from soulspot.config.sections import Settings
from soulspot.config.sources import Source, find_variables, masked, read_credentials, read_files
from soulspot.errors import ConfigError

_ALLOWED: Final = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "byte_size": "a size such as 512MiB",
    "byte_size_unit": "a size such as 512MiB",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list of paths",
    "path_type": "a path",
    "string_type": "a text",
}
_BOUNDS: Final = {"ge": "at least", "gt": "more than", "le": "at most"}


# The validators' messages end the sentence "... is X: it has to be".


def get_settings(*, config_file: Path | None = None, folders: Sequence[Path] = ()) -> Settings:
    """Return the settings, read anew; `config_file` and `folders` are those of the command line.

    Raises ConfigError, one sentence, for whatever cannot be meant.
    """
    values, origins = read_values(config_file, folders)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    check_nesting(settings.library.folders, settings.library.folders)
    return settings


def read_values(config_file: Path | None, folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what every place sets, the later one's value where two set the same, and where each value was found."""
    names = settings_fields()
    sources = [*read_files(config_file, names), read_credentials(names)]
    variables = find_variables(names)  # first: of a misspelt one the next line would say less
    sources.append(Source(EnvSettingsSource(Settings)(), variables))
    if folders:
        sources.append(Source({"library": {"folders": list(folders)}}, {"library.folders": "the command line"}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source in sources:
        origins |= source.origins
        for section, given in source.values.items():
            values[section] = values.get(section, {}) | given
    return values, origins


def settings_fields() -> dict[str, FieldInfo]:
    """Return each setting by its whole name, as in `library.folders`."""
    sections = {section: each.annotation for section, each in Settings.model_fields.items()}
    return {
        f"{section}.{name}": each
        for section, model in sections.items()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, each in model.model_fields.items()
    }


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Return what the first wrong value is, where it came from and what is allowed."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"][:2]))
    given, context = shown(first["input"]), first.get("ctx", {})
    if name in SECRETS:
        given = "***"
    elif name == "database.url" or "://" in given:
        given = shown(masked(first["input"])) if isinstance(first["input"], str) else masked(given)
    bound = next((bound for bound in _BOUNDS if bound in context), None)
    if first["type"] == "value_error":
        allowed = str(context["error"])
    elif bound is not None:
        limit = context[bound]
        size = settings_fields()[name].annotation is ByteSize
        allowed = f"{_BOUNDS[bound]} {shown(ByteSize(limit)) if size else f'{limit:g}'}"
    elif first["type"] == "literal_error":
        allowed = context["expected"]
    else:
        allowed = _ALLOWED.get(first["type"], first["msg"].removeprefix("Input should be ").partition(", ")[0])
    return f"{origins.get(name, name)} is {given}: it has to be {allowed}"


def shown(value: object) -> str:
    if isinstance(value, ByteSize):
        value = value.human_readable().replace(".0", "")
    return json.dumps(value, default=str, ensure_ascii=False)
