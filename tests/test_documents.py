"""The documents agree with the program."""

import ast
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Column
from tests.conftest import Soulspot, until, write_song
from typer.main import get_command

from soulspot.cli.actions import doctor, health
from soulspot.cli.app import app
from soulspot.config import get_settings
from soulspot.daemon.hooks.batch import Batch
from soulspot.errors import SoulspotError
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.audit_actions import ACTIONS
from soulspot.infrastructure.persistence.models import Base
from soulspot.infrastructure.persistence.schema import REVISION
from soulspot.infrastructure.tags.model import FAILURE_CODES

HERE = Path(__file__).parents[1]
NAMED = ("install", "contributing", "operations", "control", "hooks", "schema", "configuration", "scaling")
DOCUMENTS = [f"docs/{name}.md" for name in NAMED]
LEVELS = ("warning", "error", "exception", "critical")
SOURCE = "\n".join(file.read_text() for file in (HERE / "src").rglob("*.py"))


def marked(document: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", (HERE / document).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def rows(document: str, name: str) -> list[list[str]]:
    lines = marked(document, name).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted_commands(text: str) -> list[str]:
    """Return the arguments of `soulspot` in each piece of code."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [*spans, *(line for block in blocks for line in block.splitlines())]
    return [found[1].strip() for line in lines if (found := re.match(r"(?:\S*/)?soulspot((?: [^&|;…]+)?)$", line))]


def test_every_failure_code_is_documented_and_no_other() -> None:
    documented = [row[0].strip("`") for row in rows("docs/operations.md", "failures")]

    assert documented == sorted(FAILURE_CODES)


@pytest.mark.parametrize("message", [row[0].strip("`") for row in rows("docs/operations.md", "alerts")])
def test_each_documented_alert_exists_in_the_program(message: str) -> None:
    assert message in re.sub(r'"\s*f?"', "", SOURCE)


def alerts() -> list[str]:
    """Return the text of each warning or worse, from the code that logs it."""
    found = []
    for file in (HERE / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _is_a_warning(node.func):
                [message, *_] = node.args
                assert isinstance(message, ast.Constant)
                found.append(str(message.value))
    return sorted({message for message in found if message != "%s"})


def _is_a_warning(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and called.attr in LEVELS and ast.unparse(called.value) == "logger"


@pytest.mark.parametrize("message", alerts())
def test_each_alert_of_the_program_is_documented(message: str) -> None:
    assert any(row[0].strip("`") in message for row in rows("docs/operations.md", "alerts"))


def test_every_exit_code_is_documented_and_no_other() -> None:
    errors = {SoulspotError.exit_code} | {error.exit_code for error in SoulspotError.__subclasses__()}
    from_elsewhere = {0, 130, 134}  # success; typer, on Ctrl-C; SIGABRT

    documented = {int(row[0]) for row in rows("docs/operations.md", "exits")}

    assert documented == errors | set(doctor.EXIT.values()) | set(health.EXIT.values()) | from_elsewhere


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_quoted_command_and_option_exists(document: str) -> None:
    for line in quoted_commands((HERE / document).read_text()):
        command, rest = get_command(app), line.split()
        while rest and (below := getattr(command, "commands", {}).get(rest[0])) is not None:
            command, rest = below, rest[1:]
        assert command.name != "soulspot" or not rest or rest[0].startswith("-"), line
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= known, line


def test_ci_runs_the_checks_for_contributors() -> None:
    checks = set(marked("docs/contributing.md", "checks").splitlines()) - {"```sh", "```"}

    assert checks <= set((HERE / ".ci" / "run").read_text().splitlines())


def test_each_linked_file_exists() -> None:
    for document in [HERE / "README.md", *(HERE / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_each_named_module_exists() -> None:
    modules = [f"/{path.relative_to(HERE)}" for path in HERE.glob("[a-z]*/**/*.py")]
    for document in [HERE / "README.md", *(HERE / "docs").glob("*.md")]:
        for name in re.findall(r"`(?:python )?([\w/]+\.py)\b", document.read_text()):
            assert any(module.endswith(f"/{name}") for module in modules), f"{document.name}: {name}"


def test_the_generated_documents_are_current() -> None:
    result = subprocess.run([sys.executable, HERE / "docs" / "make.py", "--check"], capture_output=True, check=False)

    assert result.returncode == 0, f"run docs/make.py: {result.stdout.decode()}"


def test_the_picture_is_current() -> None:
    result = subprocess.run([sys.executable, HERE / "docs" / "picture.py", "--check"], capture_output=True, check=False)

    assert result.returncode == 0, f"run docs/picture.py: {result.stderr.decode()}"
    picture = (HERE / "docs" / "picture.svg").read_text()
    assert len(picture) < 20_000
    assert "http" not in picture.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")


@pytest.mark.parametrize("page", ["soulspot.1", "soulspot.toml.5"])
def test_man_shows_each_page_without_a_warning(page: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    command = ["man", "--warnings=w", "--local-file", str(HERE / "man" / page)]
    environment = os.environ | {"MANWIDTH": "80", "LC_ALL": "C.UTF-8"}

    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "")
    assert "SEE ALSO" in result.stdout


def test_each_example_drop_in_is_documented() -> None:
    text = (HERE / "docs/install.md").read_text()

    assert set(re.findall(r"^\| `([\w-]+\.conf)`", text, re.MULTILINE)) == {
        file.name for file in (HERE / "systemd" / "drop-ins").iterdir()
    }


def described(name: str) -> dict[str, list[tuple[str, str]]]:
    """Return the columns of each table or view in docs/schema.md, in order, with their types."""
    parts = re.split(r"^### `(\w+)`$", marked("docs/schema.md", name), flags=re.MULTILINE)[1:]
    columns = {table: re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE) for table, text in pairs(parts)}
    return {table: [(column, kind) for column, kind in found] for table, found in columns.items()}


def test_each_example_hook_is_a_valid_setting(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (HERE / "docs/hooks.md").read_text(), re.DOTALL)

    assert len(examples) == 5
    for example in examples:
        (tmp_path / "config.toml").write_text(example)
        hook = get_settings(config_file=tmp_path / "config.toml").on_batch
        assert hook.command or hook.url.get_secret_value()


def test_each_field_of_a_batch_is_documented() -> None:
    documented = {name for row in rows("docs/hooks.md", "payload") for name in re.findall(r"`(\w+)`", row[0])}

    assert documented == set(json.loads(Batch(1).payload(run="", node="", number=1, roots=())))


def test_each_named_metric_exists() -> None:
    text = "".join((HERE / document).read_text() for document in ("docs/operations.md", "docs/hooks.md"))

    assert all(f'"{name}"' in SOURCE for name in re.findall(r"\bsoulspot_\w+", text))


def pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


def kind_of(column: Column[object]) -> str:
    words = {"VARCHAR": "text", "TEXT": "text", "INTEGER": "integer", "BIGINT": "integer", "FLOAT": "number"}
    words |= {"BOOLEAN": "boolean", "DATETIME": "time", "JSON": "JSON"}
    kind = words[str(column.type.compile()).partition("(")[0]]
    return f"{kind} or null" if column.nullable else kind


def test_every_column_is_documented_and_no_other() -> None:
    tables = {
        name: [(each.name, kind_of(each)) for each in table.columns] for name, table in Base.metadata.tables.items()
    }

    assert described("tables") == tables


def test_the_documented_schema_is_the_current_revision() -> None:
    assert f"schema `{REVISION}`" in (HERE / "docs/schema.md").read_text()


def test_every_audit_action_is_documented_and_no_other() -> None:
    documented = [row[0].strip("`") for row in rows("docs/schema.md", "actions")]

    assert len(documented) == len(set(documented))
    assert set(documented) == ACTIONS


def test_each_example_query_finds_the_expected_rows(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3", album="Album", composer="Somebody")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    soulspot.scan()

    queries = re.findall(r"```sql\n(.*?)```", (HERE / "docs/schema.md").read_text(), re.DOTALL)

    connection = sqlite3.connect(soulspot.database)
    assert [len(connection.execute(query).fetchall()) for query in queries] == [1, 1, 1, 1, 1, 0]
    connection.close()


def test_every_socket_command_is_documented_and_no_other(soulspot: Soulspot) -> None:
    soulspot.watch()
    place = control_socket.socket_of(soulspot.database)

    refused = (control_socket.ask(place, "sing") or {})["error"]

    documented = {row[0].strip("`") for row in rows("docs/control.md", "questions")}
    assert documented == set(refused.rpartition(" of: ")[2].split(", "))


def test_the_example_client_prints_events(soulspot: Soulspot, tmp_path: Path) -> None:
    example = marked("docs/control.md", "example").removeprefix("```python\n").removesuffix("```\n")
    (tmp_path / "example.py").write_text(example)
    soulspot.watch()
    command = [sys.executable, str(tmp_path / "example.py"), str(control_socket.socket_of(soulspot.database))]
    with (tmp_path / "printed").open("wb") as output:
        soulspot.running.append(subprocess.Popen(command, stdout=output))

    def printed_after_a_drop() -> str:
        write_song(soulspot.music / f"{time.monotonic_ns()}.mp3")
        return (tmp_path / "printed").read_text()

    until(printed_after_a_drop)

    assert re.match(rf"added {soulspot.music}/\d+\.mp3\n", (tmp_path / "printed").read_text())
