"""The settings: their defaults, their sources, and the message for each mistake."""

import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from soulspot.config import Settings, catalogue, get_settings, sources
from soulspot.config.catalogue import find_catalogue, places_to_read
from soulspot.config.documentation import settings_table
from soulspot.config.library_check import check_library
from soulspot.config.paths import database_file
from soulspot.errors import CatalogueError, ConfigError

REPOSITORY = Path(__file__).parent.parent
FILE = "sqlite+aiosqlite:////PATH (four slashes before an absolute path)"
SERVER = "postgresql+asyncpg://USER:PASSWORD@HOST/NAME"
MARKED = re.compile(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", re.DOTALL)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, on a system without soulspot."""
    for variable in list(os.environ):
        if variable.upper().startswith(("SOULSPOT_", "XDG_", "STATE_DIRECTORY")):
            monkeypatch.delenv(variable)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "SYSTEM_CONFIG", tmp_path / "etc" / "config.toml")
    monkeypatch.setattr(catalogue, "SYSTEM_DATABASE", tmp_path / "var" / "soulspot.db")
    return folder


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can reach, unlike those of pytest, with all files of soulspot in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.setenv("HOME", name)
        monkeypatch.setattr(sources, "SYSTEM_CONFIG", folder / "config.toml")
        monkeypatch.setattr(catalogue, "SYSTEM_DATABASE", folder / "soulspot.db")
        yield folder


@contextmanager
def as_an_unprivileged_user() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def user_config(home: Path) -> Path:
    return home / ".config" / "soulspot" / "config.toml"


def refusal(config_file: Path | None = None, folders: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        get_settings(config_file=config_file, folders=folders)
    assert caught.value.exit_code == 78
    return str(caught.value)


def library_refusal(*folders: Path, known: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        check_library(get_settings(folders=folders), known)
    return str(caught.value)


def catalogue_refusal() -> str:
    with pytest.raises(CatalogueError) as caught:
        find_catalogue(get_settings())
    assert caught.value.exit_code == 78
    return str(caught.value)


# The defaults


def test_the_defaults_need_no_file_and_no_variable(home: Path) -> None:
    settings = get_settings()

    assert settings.database.url == f"sqlite+aiosqlite:///{home}/.local/share/soulspot/soulspot.db"
    assert (settings.database.upgrade, settings.database.synchronous) == (True, "NORMAL")
    assert settings.library.folders == []
    assert (settings.library.quiet_period, settings.library.missing_after) == (2.0, 10.0)
    assert (settings.library.reconcile_interval, settings.library.leases, settings.library.hidden) == (900, True, False)
    assert (settings.tags.workers, settings.tags.memory_limit, settings.tags.time_limit) == (0, 512 * 1024**2, 20.0)
    assert settings.log.level == "info"


def test_reading_the_settings_creates_nothing(home: Path, tmp_path: Path) -> None:
    get_settings(folders=[tmp_path / "nowhere"])

    assert list(tmp_path.rglob("*")) == [home]


def test_settings_read_twice_are_equal_until_one_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = get_settings(), get_settings()
    monkeypatch.setenv("SOULSPOT_LOG__LEVEL", "debug")

    assert first == second
    assert get_settings() != first


def test_under_systemd_the_database_is_in_the_first_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")

    assert get_settings().database.url == "sqlite+aiosqlite:////var/lib/one/soulspot.db"


def test_without_a_home_the_error_names_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)

    without_url = refusal()
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", "sqlite+aiosqlite:////srv/music.db")
    with_url = get_settings()

    assert without_url == "there is no home folder for the catalogue: set HOME or SOULSPOT_DATABASE__URL"
    assert with_url.database.url == "sqlite+aiosqlite:////srv/music.db"


def test_importing_the_settings_loads_no_heavy_library() -> None:
    code = "import sys, soulspot.config; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"sqlalchemy", "alembic", "mutagen", "rich", "typer", "watchfiles"} & set(loaded)


# The order of the sources


def test_later_sources_win_setting_by_setting(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "etc" / "config.toml", "[library]\nquiet_period = 3\nmissing_after = 30\nreconcile_interval = 300\n"
    )
    write(user_config(home), "[library]\nmissing_after = 40\nreconcile_interval = 400\n")
    monkeypatch.setenv("SOULSPOT_LIBRARY__RECONCILE_INTERVAL", "500")

    library = get_settings().library

    assert (library.quiet_period, library.missing_after, library.reconcile_interval) == (3, 40, 500)
    assert library.leases


def test_folders_on_the_command_line_replace_all_others(
    home: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(user_config(home), '[library]\nfolders = ["/one"]\nquiet_period = 3\n')
    monkeypatch.setenv("SOULSPOT_LIBRARY__FOLDERS", "/two")

    settings = get_settings(folders=[Path("music")])

    assert settings.library.folders == [music]
    assert settings.library.quiet_period == 3


def test_a_named_file_replaces_the_system_and_user_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(user_config(home), "[library]\nmissing_after = 40\n")
    named = write(tmp_path / "named.toml", '[log]\nlevel = "error"\n')
    other = write(tmp_path / "other.toml", '[log]\nlevel = "warning"\n')

    monkeypatch.setenv("SOULSPOT_CONFIG", str(named))
    by_variable = get_settings()
    by_option = get_settings(config_file=other)

    assert (by_variable.log.level, by_variable.library.missing_after) == ("error", 10)
    assert (by_option.log.level, by_option.library.missing_after) == ("warning", 10)


def test_an_empty_variable_counts_as_not_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(user_config(home), "[tags]\nworkers = 3\n")
    monkeypatch.setenv("SOULSPOT_TAGS__WORKERS", "")
    monkeypatch.setenv("SOULSPOT_CONFIG", "")

    assert get_settings().tags.workers == 3


def test_a_variable_may_be_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("soulspot_log__level", "DEBUG")

    assert get_settings().log.level == "debug"


@pytest.mark.parametrize("value", ["/a:~/b::c", '["/a", "~/b", "c"]'])
def test_folders_in_the_environment_are_json_or_separated_by_colons(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SOULSPOT_LIBRARY__FOLDERS", value)

    assert get_settings().library.folders == [Path("/a"), home / "b", tmp_path / "c"]


def test_the_environment_may_name_a_folder_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SOULSPOT_LIBRARY__FOLDERS", "/a/\udcff")

    assert get_settings().library.folders == [Path("/a/\udcff")]


def test_sizes_may_have_units_and_words_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOULSPOT_TAGS__MEMORY_LIMIT", "1GiB")
    monkeypatch.setenv("SOULSPOT_DATABASE__SYNCHRONOUS", "full")

    settings = get_settings()

    assert settings.tags.memory_limit == 1024**3
    assert settings.database.synchronous == "FULL"


# Unknown names


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("SOULSPOT_DATABASE_URL", ": did you mean SOULSPOT_DATABASE__URL?"),
        ("SOULSPOT_LIBRARY__QUITE_PERIOD", ": did you mean SOULSPOT_LIBRARY__QUIET_PERIOD?"),
        ("SOULSPOT_FOLDERS", ": did you mean SOULSPOT_LIBRARY__FOLDERS?"),
        ("SOULSPOT_CONFG", ": did you mean SOULSPOT_CONFIG?"),
        (
            "SOULSPOT_DATABASE",
            " but a section, of SOULSPOT_DATABASE__URL, SOULSPOT_DATABASE__CONNECTIONS, SOULSPOT_DATABASE__UPGRADE,"
            " SOULSPOT_DATABASE__SYNCHRONOUS",
        ),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, hint: str
) -> None:
    monkeypatch.setenv(variable, "x")

    assert refusal() == f"the environment variable {variable} is not a setting{hint}"


def test_an_unknown_variable_without_a_near_name_is_refused_with_all_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOULSPOT_ZZZ", "x")

    message = refusal()

    assert message.startswith(
        "the environment variable SOULSPOT_ZZZ is not a setting: there are SOULSPOT_DATABASE__URL, "
    )
    assert message.endswith("SOULSPOT_LOG__FORMAT, SOULSPOT_CONFIG")


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("[library]\nquiet_perod = 3\n", 2, "library.quiet_perod: did you mean library.quiet_period?"),
        ('[databse]\nurl = "x"\n', 2, "databse.url: did you mean database.url?"),
        ("[databse]\n", 1, "databse: did you mean database.url?"),
        ('# mine\nfolders = ["/a"]\n', 2, "folders: did you mean library.folders?"),
        ('log.levle = "info"\n', 1, "log.levle: did you mean log.level?"),
        ('log = { levle = "info" }\n', 1, "log.levle: did you mean log.level?"),
        ("\n[[log]]\n", 2, "log but a section, of log.level, log.format"),
    ],
)
def test_an_unknown_name_in_a_file_is_refused_with_line_and_nearest_name(
    home: Path, text: str, line: int, hint: str
) -> None:
    file = write(user_config(home), text)

    assert refusal() == f"{file}, line {line}: there is no setting {hint}"


def test_an_empty_section_is_allowed(home: Path) -> None:
    write(user_config(home), "[library]\n[log]\n")

    assert get_settings() == Settings()


# Files that cannot be read


def test_a_missing_named_file_is_refused_with_its_option_or_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_option = refusal(Path("no.toml"))
    monkeypatch.setenv("SOULSPOT_CONFIG", str(tmp_path / "none.toml"))
    by_variable = refusal()

    assert by_option == f"the configuration file {tmp_path}/no.toml does not exist: correct --config"
    assert by_variable == f"the configuration file {tmp_path}/none.toml does not exist: correct SOULSPOT_CONFIG"


def test_an_unreadable_file_is_never_ignored(open_folder: Path) -> None:
    file = write(open_folder / "config.toml", "")
    file.chmod(0)

    with as_an_unprivileged_user():
        message = refusal()

    assert message == (
        f"cannot read the configuration file {file} (permission denied): fix that or name another with --config"
    )


def test_an_inaccessible_home_has_no_configuration(open_folder: Path) -> None:
    write(user_config(open_folder), '[log]\nlevel = "debug"\n')
    (open_folder / ".config").chmod(0)

    with as_an_unprivileged_user():
        settings = get_settings()

    assert settings.log.level == "info"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[log]\nlevel: info\n", ", line 2: invalid TOML: expected '=' after a key in a key/value pair"),
        ("[log]\nlevel = debug\n", ", line 2: invalid TOML: invalid value"),
        ("[log]\nlevel = [", ", at its end: invalid TOML: invalid value"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    file = write(tmp_path / "config.toml", text)

    assert refusal(file) == f"{file}{problem}"


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b'[log]\nlevel = "\xff"\n')

    assert refusal(file) == f"the configuration file {file} is not UTF-8: save it as UTF-8"


# Wrong values


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("LIBRARY__QUIET_PERIOD", "soon", "a number"),
        ("LIBRARY__QUIET_PERIOD", "-1", "at least 0"),
        ("LIBRARY__RECONCILE_INTERVAL", "inf", "at most 604800"),
        ("LIBRARY__RECONCILE_INTERVAL", "nan", "at most 604800"),
        ("LIBRARY__FOLDERS", '["/a"', "a JSON list of paths, or paths separated by colons"),
        ("LIBRARY__LEASES", "maybe", "true or false"),
        ("TAGS__WORKERS", "1.5", "a whole number"),
        ("TAGS__WORKERS", "1000", "at most 64"),
        ("TAGS__TIME_LIMIT", "0", "more than 0"),
        ("TAGS__MEMORY_LIMIT", "much", "a size such as 512MiB"),
        ("TAGS__MEMORY_LIMIT", "1MiB", 'at least "128MiB"'),
        ("DATABASE__SYNCHRONOUS", "OFF", "'NORMAL' or 'FULL'"),
        ("LOG__LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_variable_is_refused_with_the_allowed_values(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(f"SOULSPOT_{setting}", value)

    assert refusal() == f"SOULSPOT_{setting} is {json.dumps(value)}: it must be {allowed}"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("[library]\n\nquiet_period = -1\n", "library.quiet_period", "-1: it must be at least 0"),
        ("[library]\nhidden = 0\nmissing_after = true\n", "library.missing_after", "true: it must be a number"),
        ("\n\ntags.workers = true\n", "tags.workers", "true: it must be a number"),
        ('\n\nlibrary.folders = ["/a", ""]\n', "library.folders", '["/a", ""]: it must be a list of paths, none'),
        ("\n\nlibrary.folders = [3]\n", "library.folders", "3: it must be a path"),
        ('\n\nlibrary.folders = ["a\\u0000"]\n', "library.folders", '"a\\u0000": it must be a path without NUL'),
        ("\n\nlibrary = {folders = 3}\n", "library.folders", "3: it must be a list of paths"),
        ("\n\ndatabase.url = 3\n", "database.url", "3: it must be a text"),
    ],
)
def test_a_wrong_value_in_a_file_is_refused_with_line_and_allowed_values(
    tmp_path: Path, text: str, place: str, problem: str
) -> None:
    file = write(tmp_path / "config.toml", text)

    assert refusal(file).startswith(f"{place} in {file}, line 3 is {problem}")


def test_a_wrong_value_is_traced_to_the_source_that_won(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(user_config(home), '[log]\nlevel = "loud"\n')
    monkeypatch.setenv("SOULSPOT_LOG__LEVEL", "louder")

    assert refusal().startswith('SOULSPOT_LOG__LEVEL is "louder": ')


# The database's URL


@pytest.mark.parametrize(
    ("url", "shown", "allowed"),
    [
        ("sqlite:///x.db", "sqlite:///x.db", "a URL that starts with sqlite+aiosqlite://, not sqlite://"),
        (
            "postgresql://al:secret@host/music",
            "postgresql://al:***@host/music",
            "a URL that starts with postgresql+asyncpg://, not postgresql://",
        ),
        (
            "postgresql+psycopg://al:secret/er?@host/music",
            "postgresql+psycopg://al:***@host/music",
            "a URL that starts with postgresql+asyncpg://, not postgresql+psycopg://",
        ),
        (
            "postgresql+asyncpg://al:se@cret@host/music",
            "postgresql+asyncpg://al:***@host/music",
            f"{SERVER}, with %40 for an @ in the password",
        ),
        ("mysql://al:secret@host/music", "mysql://al:***@host/music", f"{FILE} or {SERVER}"),
        ("/var/lib/music.db", "/var/lib/music.db", f"{FILE} or {SERVER}"),
        ("sqlite+aiosqlite://var/music.db", "sqlite+aiosqlite://var/music.db", f"the URL of a file, {FILE}"),
        ("sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite:///:memory:", f"the URL of a file, {FILE}"),
        ("sqlite+aiosqlite:///file:x?uri=true", "sqlite+aiosqlite:///file:x?uri=true", f"the URL of a file, {FILE}"),
    ],
)
def test_an_unsupported_url_is_refused_with_the_right_form(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str, allowed: str
) -> None:
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", url)

    assert refusal() == f'SOULSPOT_DATABASE__URL is "{shown}": it must be {allowed}'


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://al:hunter2@host/music",
        "postgresql://al:hunter2/@host/music",
        "postgresql://al:#hunter2@h@host/music",
        "postgresql:/al:hunter2@host/music",
        "al:hunter2@host",
        "postgresql://al:hunter2",
        "postgresql://host/music?user=al&password=hunter2",
        '["postgresql://al:hunter2@host/music"]',
    ],
)
def test_a_traceback_shows_no_password(tmp_path: Path, url: str) -> None:
    value = url if url.startswith("[") else json.dumps(url)
    file = write(tmp_path / "config.toml", f"[database]\nurl = {value}\n")

    with pytest.raises(ConfigError) as caught:
        get_settings(config_file=file)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_repr_of_the_settings_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", "postgresql+asyncpg://al:hunter2@host/music")

    assert "hunter2" not in repr(get_settings())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://al:p%40ss%25@host:5432/music",
        "postgresql+asyncpg://al@[::1]/music",
        "postgresql+asyncpg:///music?host=/run/postgresql",
    ],
)
def test_a_postgresql_url_is_unchanged(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", url)

    assert get_settings().database.url == url
    assert database_file(url) is None


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite+aiosqlite:///music.db", "{tmp}/music.db"),
        ("sqlite+aiosqlite:///../music.db?timeout=3", "{up}/music.db"),
        ("sqlite+aiosqlite:///~/music.db", "{tmp}/home/music.db"),
        ("sqlite+aiosqlite:////srv/100%25 music%3F.db", "/srv/100% music?.db"),
    ],
)
def test_an_sqlite_url_names_the_same_absolute_file_as_in_sqlalchemy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, file: str
) -> None:
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", url)
    expected = file.format(tmp=tmp_path, up=tmp_path.parent)

    read = get_settings().database.url
    monkeypatch.chdir("/")

    assert database_file(read) == Path(expected)
    assert make_url(read).database == expected
    assert make_url(read).query == make_url(url).query


def test_the_default_database_is_found_in_a_folder_with_an_odd_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", f"{home}/100%25 ?")

    url = get_settings().database.url

    assert str(database_file(url)) == make_url(url).database == f"{home}/100%25 ?/soulspot/soulspot.db"


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///", "sqlite+aiosqlite:///:memory:"])
def test_a_database_in_memory_has_no_file(url: str) -> None:
    assert database_file(url) is None


# The music folders


def test_readable_folders_pass(music: Path, tmp_path: Path) -> None:
    (tmp_path / "music2").mkdir()

    check_library(get_settings(folders=[music, tmp_path / "music2"]))


def test_a_start_without_folders_is_refused_with_how_to_name_one() -> None:
    assert library_refusal() == ("no music folder given: name one on the command line or set SOULSPOT_LIBRARY__FOLDERS")


def test_a_folder_named_twice_is_refused(music: Path) -> None:
    assert refusal(folders=(music, Path("music"))) == f"the music folder {music} is named twice: name it once"


@pytest.mark.parametrize("inner_first", [False, True])
def test_a_folder_inside_another_is_refused(music: Path, inner_first: bool) -> None:
    folders = (music / "jazz", music) if inner_first else (music, music / "jazz")

    message = refusal(folders=folders)

    assert message == f"the music folder {music}/jazz is inside {music}: name only {music}"


def test_a_folder_inside_another_through_a_link_is_refused(music: Path, tmp_path: Path) -> None:
    (music / "jazz").mkdir()
    inner, same = tmp_path / "jazz", tmp_path / "same"
    inner.symlink_to(music / "jazz")
    same.symlink_to(music)

    assert library_refusal(music, inner) == (f"the music folder {inner} is inside {music}: name only {music}")
    assert library_refusal(music, same) == (f"the music folders {music} and {same} are the same folder: name only one")


def test_an_absent_folder_is_refused_unless_the_catalogue_knows_it(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    assert library_refusal(gone) == f"the music folder {gone} does not exist: create it or correct the path"
    check_library(get_settings(folders=[gone]), known=[gone])


def test_a_file_is_refused_even_if_the_catalogue_knows_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "song.flac", "")

    message = library_refusal(file, known=(file,))

    assert message == f"the music folder {file} is a file: name the folder that holds it"


def test_a_folder_below_a_file_does_not_exist(tmp_path: Path) -> None:
    folder = write(tmp_path / "song.flac", "") / "music"

    assert library_refusal(folder) == f"the music folder {folder} does not exist: create it or correct the path"


def test_an_unreadable_folder_is_refused_with_the_reason(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    message = library_refusal(loop)

    assert message == (
        f"cannot read the music folder {loop} (too many levels of symbolic links): fix that or correct the path"
    )


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111], ids=["nothing", "list only", "search only"])
def test_a_folder_that_cannot_be_listed_or_searched_is_refused(open_folder: Path, mode: int) -> None:
    folder = open_folder / "music"
    folder.mkdir()
    folder.chmod(mode)

    with as_an_unprivileged_user():
        message = library_refusal(folder, known=(folder,))

    assert message == f"cannot read the music folder {folder}: grant this user read and search access"


def test_a_database_in_a_music_folder_is_refused_even_through_a_link(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(music)

    for file in (music / "soulspot.db", link / "deep" / "soulspot.db"):
        monkeypatch.setenv("SOULSPOT_DATABASE__URL", f"sqlite+aiosqlite:///{file}")

        assert library_refusal(music) == (
            f"the database {file} is in the music folder {music}, where each of its writes would wake the"
            " watcher: set SOULSPOT_DATABASE__URL to a path outside"
        )


def test_a_database_beside_a_music_folder_or_on_a_server_passes(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"sqlite+aiosqlite:///{music}2.db", "postgresql+asyncpg://host/music"):
        monkeypatch.setenv("SOULSPOT_DATABASE__URL", url)

        check_library(get_settings(folders=[music]))


# The catalogue of a read-only command


def test_the_catalogue_of_the_user_has_priority_over_that_of_the_service(home: Path, tmp_path: Path) -> None:
    service = write(tmp_path / "var" / "soulspot.db", "")
    own = home / ".local" / "share" / "soulspot" / "soulspot.db"

    alone = find_catalogue(get_settings())
    write(own, "")
    both = find_catalogue(get_settings())

    assert places_to_read() == [own, service]
    assert alone == f"sqlite+aiosqlite:///{service}"
    assert both == f"sqlite+aiosqlite:///{own}"


def test_without_a_catalogue_the_error_names_the_places_tried(home: Path, tmp_path: Path) -> None:
    assert catalogue_refusal() == (
        f"found no catalogue at {home}/.local/share/soulspot/soulspot.db (not found) or"
        f" {tmp_path}/var/soulspot.db (not found): create one with `soulspot watch FOLDER` or `soulspot scan FOLDER`,"
        " or set SOULSPOT_DATABASE__URL"
    )


def test_an_unreadable_catalogue_is_named(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(open_folder / "soulspot.db", "")
    file.chmod(0)

    with as_an_unprivileged_user():
        tried = catalogue_refusal()
        monkeypatch.setenv("SOULSPOT_DATABASE__URL", f"sqlite+aiosqlite:///{file}")
        named = catalogue_refusal()

    assert f" or {file} (permission denied): " in tried
    assert named == (
        f"cannot read the catalogue {file} (permission denied): grant this user access, or set another database.url"
    )


def test_a_configured_catalogue_is_not_searched_for_elsewhere(home: Path, tmp_path: Path) -> None:
    write(tmp_path / "var" / "soulspot.db", "")
    write(user_config(home), '[database]\nurl = "sqlite+aiosqlite:///mine.db"\n')

    message = catalogue_refusal()
    (tmp_path / "mine.db").touch()

    assert message == (
        f"there is no catalogue at {tmp_path}/mine.db yet: create it with `soulspot watch` or `soulspot scan`"
    )
    assert find_catalogue(get_settings()) == f"sqlite+aiosqlite:///{tmp_path}/mine.db"


def test_only_the_database_url_turns_off_the_search_for_a_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = write(tmp_path / "var" / "soulspot.db", "")
    monkeypatch.setenv("SOULSPOT_DATABASE__UPGRADE", "false")

    assert find_catalogue(get_settings()) == f"sqlite+aiosqlite:///{service}"


def test_a_server_url_is_used_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", "postgresql+asyncpg://host/music")

    assert find_catalogue(get_settings()) == "postgresql+asyncpg://host/music"


# The documents


def test_the_documented_table_of_settings_is_current() -> None:
    table = MARKED.search((REPOSITORY / "docs/configuration.md").read_text())

    assert table is not None
    assert table[1] == settings_table()


def test_the_documented_example_has_every_setting_with_its_default(home: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (REPOSITORY / "docs/configuration.md").read_text(), re.DOTALL)
    file = write(tmp_path / "config.toml", example.replace("# url", "url"))
    names = re.findall(r"^\| `([\w.]+)`", settings_table(), re.MULTILINE)

    settings = get_settings(config_file=file)

    assert settings.library.folders == [Path("/srv/music"), home / "Music"]
    assert settings.model_dump(exclude={"library": {"folders"}, "database": {"url"}}) == get_settings().model_dump(
        exclude={"library": {"folders"}, "database": {"url"}}
    )
    assert {
        f"{section}.{name}" for section in Settings.model_fields for name in getattr(settings, section).model_fields_set
    } == set(names)
