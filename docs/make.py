"""Write the parts of the documents that come from the code: the tables of settings and the man pages.

    python docs/make.py [--check]

The man pages hold `--help`, the settings and the exit codes of docs/operations.md. --check writes nothing and exits
with 1 if a file is stale.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ByteSize
from pydantic.fields import FieldInfo
from typer.main import get_command

from soulspot import __version__
from soulspot.cli.app import app
from soulspot.config.documentation import settings_table
from soulspot.config.loading import settings_fields
from soulspot.config.sources import variable

HERE: Final = Path(__file__).parents[1]
TABLES: Final = ("docs/configuration.md",)

DESCRIPTION: Final = """\
soulspot keeps a database of a music collection in step with the folders on disk: drop an audio file in, and a moment
later its track, artists and album are in the catalogue, and the history says what changed and when. It watches with
inotify, reads tags in separate processes, and writes each file in one transaction to SQLite or PostgreSQL. It never
writes to the music folders.

Commands that report something take `--json` and then print one JSON object a line.
"""
ENVIRONMENT: Final = {
    "SOULSPOT_CONFIG": "The TOML file to read instead of the usual two, unless `--config` names one.",
    "SOULSPOT_SECTION__NAME": "A setting, for example `SOULSPOT_LIBRARY__FOLDERS=/srv/music`: see soulspot.toml(5).",
    "NO_COLOR": "If set, no colours on a terminal.",
}
FILES: Final = {
    "/etc/soulspot/config.toml": "The system-wide settings.",
    "~/.config/soulspot/config.toml": "Your own settings.",
    "/var/lib/soulspot/soulspot.db": "The catalogue of the system service.",
    "~/.local/share/soulspot/soulspot.db": "The catalogue of a soulspot that you run yourself.",
}
EXAMPLES: Final = {
    "soulspot watch ~/Music": "Keep a catalogue of your music until you stop it.",
    "soulspot explain ~/Music/song.mp3": "Explain why a file is in the catalogue or is not.",
    "soulspot audit --since 24h": "Show what changed in the last 24 hours.",
    "soulspot service install": "Run soulspot as a systemd service.",
}


def made() -> dict[Path, str]:
    """Return each generated file and its content."""
    files = {HERE / "man" / "soulspot.1": command_page(), HERE / "man" / "soulspot.toml.5": settings_page()}
    for name in TABLES:
        text = (HERE / name).read_text(encoding="utf-8")
        table = rf"\1{settings_table()}\n\2".replace("\\n", "\n")
        files[HERE / name] = re.sub(r"(<!-- settings -->\n).*?(<!-- /settings -->)", table, text, flags=re.DOTALL)
    return files


def command_page() -> str:
    lines = _head("soulspot", "1", "keeps an exact catalogue of music folders, with its history")
    lines += [
        ".SH SYNOPSIS",
        ".B soulspot",
        r".RI [ OPTION ]",
        r".I COMMAND",
        r".RI [ ARGUMENT ]...",
        ".SH DESCRIPTION",
    ]
    lines += _paragraphs(DESCRIPTION)
    root = get_command(app)
    lines += [".SH OPTIONS", *_parameters(root.params), ".SH COMMANDS"]
    for name, command in _commands(root, "soulspot"):
        lines += [".SS " + _quoted(" ".join([name, *_usage(command.params)])), *_paragraphs(command.help)]
        lines += _parameters(command.params)
    lines += [".SH EXIT STATUS"]
    for code, meaning in _exit_codes():
        lines += [".TP", f".B {code}", _text(meaning)]
    for title, entries in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES), ("EXAMPLES", EXAMPLES)):
        lines += [f".SH {title}", *_list(entries)]
    lines += [".SH SEE ALSO", ".BR soulspot.toml (5),", ".BR systemctl (1),", ".BR inotify (7)"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    lines = _head("soulspot.toml", "5", "the settings of soulspot")
    lines += [".SH SYNOPSIS", *_list(dict.fromkeys(list(FILES)[:2], "")), ".SH DESCRIPTION"]
    lines += _paragraphs(
        "soulspot runs without a configuration file: every setting has a default. A TOML file overrides defaults."
        " Later sources win, setting by setting: the system-wide file, your own file, systemd credentials, the"
        " environment, the folders on the command line. `--config FILE`, or else `$SOULSPOT_CONFIG`, names one file in"
        " place of the two.\n\n"
        "An unknown setting or an invalid value ends soulspot with exit code 78 and a message that says where it is."
        " `soulspot config check` validates the settings before a start, `soulspot config show` shows where each value"
        " comes from, and `soulspot config init` writes a file with all settings."
    )
    defaults = dict(re.findall(r"^\| `([\w.]+)` \| [^|]+ \| (.*?) \| ", settings_table(), re.MULTILINE))
    section = ""
    for name, each in settings_fields().items():
        if not name.startswith(f"{section}."):
            section = name.partition(".")[0]
            lines.append(f".SH [{section}]")
        lines += [".TP", f".B {_text(name.partition('.')[2])}", _text(each.description or "")]
        lines += [".br", _text(f"Default: {defaults[name]}{_allowed(each)}. Environment: {variable(name)}")]
    lines += [".SH EXAMPLE", ".nf"]
    lines += ["[library]", *map(_text, ('folders = ["/srv/music"]', "quiet_period = 5")), ".fi"]
    lines += [".SH SEE ALSO", ".BR soulspot (1)"]
    return "\n".join(lines) + "\n"


def _head(name: str, section: str, what: str) -> list[str]:
    comment = r".\" Generated by docs/make.py from the code: change that."
    title = f'.TH {name.upper()} {section} "" "soulspot {__version__}" "soulspot"'
    return [comment, title, ".nh", ".ad l", ".SH NAME", rf"{name} \- {what}"]


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's own, of either kind
    """Yield each command with its full name."""
    for short, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from _commands(below, f"{name} {short}")
        elif not below.hidden:
            yield f"{name} {short}", below


def _usage(parameters: Sequence[Any]) -> list[str]:
    arguments = [each.metavar or each.name.upper() for each in parameters if each.param_type_name == "argument"]
    needed = [each for each in parameters if each.param_type_name == "option" and each.required]
    options = ["[OPTION]..."] if len(needed) < sum(each.param_type_name == "option" for each in parameters) else []
    return [*options, *(f"{each.opts[0]} {each.metavar}" for each in needed), *arguments]


def _parameters(parameters: Sequence[Any]) -> list[str]:
    lines = []
    for each in parameters:
        if each.param_type_name == "argument":
            shown = rf"\fI{_text(each.metavar or each.name.upper())}\fR"
        else:
            value = "" if each.is_flag else rf" \fI{_text(each.metavar or each.name.upper())}\fR"
            shown = ", ".join(rf"\fB{_text(option)}\fR{value}" for option in reversed(each.opts))
        lines += [".TP", shown, _text(each.help or "")]
    return lines


def _exit_codes() -> list[tuple[str, str]]:
    text = (HERE / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("<!-- exits -->\n")[2].partition("<!-- /exits -->")[0]
    cells = [row.strip("|").split(" | ") for row in table.splitlines()[2:]]
    return [(row[0].strip(), row[1].strip()) for row in cells]


def _allowed(setting: FieldInfo) -> str:
    """Return the bounds or the choices of a setting."""
    rules = []
    for rule in setting.metadata:
        for kind, name, words in ((Ge, "ge", "at least"), (Gt, "gt", "more than"), (Le, "le", "at most")):
            if isinstance(rule, kind):
                bound = getattr(rule, name)
                size = ByteSize(bound).human_readable().replace(".0", "")
                rules.append(f"{words} {size if setting.annotation is ByteSize else bound}")
    if get_origin(setting.annotation) is Literal:
        rules.append("one of " + ", ".join(f'"{each}"' for each in get_args(setting.annotation)))
    return f"; {', '.join(rules)}" if rules else ""


def _list(entries: dict[str, str]) -> list[str]:
    lines = []
    for name, meaning in entries.items():
        lines += [".TP", f".B {_text(name)}", _text(meaning)] if meaning else [f".B {_text(name)}", ".br"]
    return lines


def _paragraphs(text: str) -> list[str]:
    lines = []
    for paragraph in text.strip().split("\n\n"):
        lines += [".PP", _text(" ".join(paragraph.split()))]
    return lines[1:]


def _quoted(text: str) -> str:
    return '"' + _text(text).replace('"', r"\(dq") + '"'


def _text(text: str) -> str:
    r"""Escape a text for troff, with text between backticks in bold."""
    text = (
        text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("~", r"\(ti").replace("^", r"\(ha")
    )
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    text = "".join(each if each.isascii() else rf"\[u{ord(each):04X}]" for each in text)
    return rf"\&{text}" if text.startswith(".") else text


def main() -> None:
    stale = {file: text for file, text in made().items() if not file.exists() or file.read_text("utf-8") != text}
    for file, text in stale.items():
        print(file.relative_to(HERE))
        if "--check" not in sys.argv:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
