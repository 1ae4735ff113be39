"""The documented installation leads to a catalogued file on a bare machine."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.conftest import until, write_song
from tests.support.clean_install import (
    HERE,
    PYTHON_PACKAGE,
    BareDebian,
    copy_source,
    fetch_wheels,
    install_as_the_readme_says,
    offline,
    titles,
    why_no_debian,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if (reason := why_no_debian()) is not None:
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("wheels") / "wheels"
    fetch_wheels(place)
    yield place
    shutil.rmtree(place.parent)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[BareDebian]:
    debian = BareDebian(tmp_path / "tree")
    debian.root.mkdir()
    yield debian
    shutil.rmtree(debian.root)  # 200 MB


def test_the_readme_catalogues_a_first_file_within_two_minutes(tree: BareDebian, wheels: Path, tmp_path: Path) -> None:
    tree.make(PYTHON_PACKAGE)
    assert not any((tree.root / "usr/bin" / name).exists() for name in ("git", "pip", "gcc", "curl"))

    ready, done = install_as_the_readme_says(tree, wheels, tmp_path / "log")

    assert ready <= done < 120
    assert (tree.root / "root/soulspot/.venv/share/man/man1/soulspot.1").exists()


@dataclass
class Stage:
    """One image, as far as the Containerfile has defined it."""

    tree: BareDebian
    folder: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, str] = field(default_factory=dict)


def build(containerfile: str, tree: BareDebian, wheels: Path) -> Stage:
    """Run a Containerfile on bare trees; return its last stage."""
    text = re.sub(r"^#.*\n", "", containerfile, flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, Stage] = {}
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "FROM":
            stage = stages[rest.partition(" AS ")[2]] = Stage(BareDebian(tree.root / f"stage{len(stages)}"))
            stage.tree.root.mkdir()
            stage.tree.make(PYTHON_PACKAGE, "passwd")
            shutil.copytree(wheels, stage.tree.root / "wheels")
        elif word == "RUN":
            stage.tree.run(f"cd {stage.folder}\n{rest}", user=stage.user, **stage.environment, **offline("/wheels"))
        elif word == "COPY" and rest == ". .":
            copy_source(stage.tree.root / stage.folder[1:])
        elif word == "COPY":
            [[name, source, target]] = re.findall(r"--from=(\w+) (\S+) (\S+)", rest)
            shutil.copytree(stages[name].tree.root / source[1:], stage.tree.root / target[1:], symlinks=True)
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.tree.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            stage.environment |= dict(re.findall(r"(\w+)=(\S+)", rest))
        elif word == "USER":
            stage.user = rest
        else:
            stage.instructions[word] = rest
    return stage


def shell(arguments: str) -> str:
    return shlex.join(json.loads(arguments))


def test_the_containerfile_builds_a_healthy_service_that_catalogues(
    tree: BareDebian, wheels: Path, tmp_path: Path
) -> None:
    image = build((HERE / "Containerfile").read_text(), tree, wheels)
    song = write_song(image.tree.root / "music/song.mp3", title="Contained")
    (image.tree.root / "music").chmod(0o755)
    instructions, inside = image.instructions, {"user": image.user, **image.environment}

    command = f"exec {shell(instructions['ENTRYPOINT'])} {shell(instructions['CMD'])}"
    with image.tree.running(command, tmp_path / "log", **inside) as daemon:
        catalogue = image.tree.root / "catalogue/soulspot.db"
        until(lambda: daemon.poll() is not None or titles(catalogue) == ["Contained"])
        assert daemon.poll() is None, (tmp_path / "log").read_text()
        image.tree.run(shell(instructions["HEALTHCHECK"].partition(" CMD ")[2]), **inside)

    assert song.stat().st_uid == 0
    assert catalogue.stat().st_uid == 970
