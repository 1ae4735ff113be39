"""`soulspot config` shows settings, checks them, and writes a file to start from."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from tests.conftest import Soulspot

from soulspot.config import Settings, get_settings
from soulspot.config.documentation import settings_table

NAMES = re.findall(r"^\| `([\w.]+)`", settings_table(), re.MULTILINE)


def shown(soulspot: Soulspot, **settings: str) -> dict[str, tuple[str, str]]:
    lines = soulspot.run("config", "show", "--json", **settings).stdout.splitlines()
    return {each["name"]: (each["value"], each["origin"]) for each in map(json.loads, lines)}


def test_each_setting_is_shown_with_its_origin(soulspot: Soulspot, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[library]\nfolders = ["/srv/music"]\nquiet_period = 3\n')

    found = shown(soulspot, SOULSPOT_CONFIG=str(file), SOULSPOT_LIBRARY__QUIET_PERIOD="5")

    assert list(found) == NAMES
    assert found["library.folders"] == ('["/srv/music"]', f"{file}, line 2")
    assert found["library.quiet_period"] == ("5.0", "SOULSPOT_LIBRARY__QUIET_PERIOD")
    assert found["log.level"] == ('"info"', "the default")


def test_a_password_is_not_shown(soulspot: Soulspot) -> None:
    url = "postgresql+asyncpg://me:secret@host/music"

    result = soulspot.run("config", "show", SOULSPOT_DATABASE__URL=url)

    assert "postgresql+asyncpg://me:***@host/music" in result.stdout
    assert "secret" not in result.stdout


def test_a_secret_can_come_from_a_credential(soulspot: Soulspot, tmp_path: Path) -> None:
    del soulspot.environment["SOULSPOT_DATABASE__URL"]
    (tmp_path / "database.url").write_text("postgresql+asyncpg://me:secret@host/music\n")

    found = shown(soulspot, CREDENTIALS_DIRECTORY=str(tmp_path))

    place = f"the credential {tmp_path}/database.url"
    assert found["database.url"] == ('"postgresql+asyncpg://me:***@host/music"', place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[library]\nquiet = 3\n", "config.toml, line 2: there is no setting library.quiet"),
        ("[tags]\nworkers = -1\n", "tags.workers in"),
        ("[tags\n", "line 1: invalid TOML"),
        ('[library]\nfolders = ["/srv", "/srv/music"]\n', "is inside /srv"),
    ],
)
def test_check_names_the_place_and_the_allowed_values(
    soulspot: Soulspot, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.toml").write_text(text)

    result = soulspot.run("config", "check", "--config", str(tmp_path / "config.toml"))

    assert result.returncode == 78
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_check_allows_a_folder_that_is_not_mounted(soulspot: Soulspot) -> None:
    result = soulspot.run("config", "check", SOULSPOT_LIBRARY__FOLDERS=f"{soulspot.music}:/nowhere")

    assert result.returncode == 0
    assert result.stdout == "all settings are valid\nmissing now: /nowhere\n"


def test_init_writes_every_setting_commented_out_with_its_default(soulspot: Soulspot, tmp_path: Path) -> None:
    file = tmp_path / "etc" / "config.toml"

    assert soulspot.run("config", "init", str(file)).returncode == 0

    text = file.read_text()
    assert tomllib.loads(text) == {section: {} for section in Settings.model_fields}
    uncommented = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    sections = tomllib.loads(uncommented)
    assert [f"{section}.{name}" for section, given in sections.items() for name in given] == NAMES
    uncommented = uncommented.replace("////PATH", f"///{tmp_path}/x.db")
    file.write_text(uncommented)
    assert get_settings(config_file=file).model_dump(exclude={"database": {"url"}}) == get_settings().model_dump(
        exclude={"database": {"url"}}
    )


def test_init_overwrites_a_file_only_with_force(soulspot: Soulspot, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("mine")

    refused = soulspot.run("config", "init", str(file))
    kept = file.read_text()
    forced = soulspot.run("config", "init", str(file), "--force")

    assert (refused.returncode, kept) == (78, "mine")
    assert forced.returncode == 0
    assert file.read_text().startswith("# soulspot")
