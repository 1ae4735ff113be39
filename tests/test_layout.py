"""The layout of the source tree: few rooms at the top, no import cycle on any level, every package introduced."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import soulspot

SOURCE = Path(soulspot.__file__).parent
GRAPH = grimp.build_graph("soulspot")  # includes imports inside functions and those for type checking only
MAKES_A_TASK = {"create_task", "ensure_future"}
PACKAGES = sorted(module for module in GRAPH.modules if GRAPH.find_children(module))


def test_the_top_level_has_at_most_12_entries() -> None:
    entries = {path.name for path in SOURCE.iterdir() if path.name not in {"__pycache__", "__init__.py", "py.typed"}}

    assert len(entries) <= 12, sorted(entries)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle_among_the_members_of(package: str) -> None:
    graph = grimp.build_graph("soulspot")
    for child in graph.find_children(package):
        graph.squash_module(child)
    members = graph.find_children(package)
    imports = {member: graph.find_modules_directly_imported_by(member) & members - {member} for member in members}

    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docstring_introduces(package: str) -> None:
    text = (SOURCE.parent / package.replace(".", "/") / "__init__.py").read_text()

    assert text.startswith('"""'), f"{package}/__init__.py says what lives there, and who may import it"


def test_every_asyncio_task_has_a_name() -> None:
    paths = [path for path in SOURCE.rglob("*.py") if "ingest" not in path.parts]
    unnamed = [f"{path.relative_to(SOURCE)}:{line}" for path in paths for line in _unnamed_tasks(path)]

    assert not unnamed, "a dump of a stuck daemon needs names: add name="


def _unnamed_tasks(path: Path) -> list[int]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    tasks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in MAKES_A_TASK]
    return [call.lineno for call in tasks if "name" not in {keyword.arg for keyword in call.keywords}]
