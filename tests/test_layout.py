"""The layout of the source tree: few rooms at the top, no import cycle on any level, every package introduced."""

import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import soulspot

SOURCE = Path(soulspot.__file__).parent
GRAPH = grimp.build_graph("soulspot")  # includes imports inside functions and those for type checking only
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


def test_tags_are_translated_with_the_tag_model_and_the_standard_library_alone() -> None:
    graph = grimp.build_graph("soulspot", include_external_packages=True)
    translation = {f"soulspot.ingest.catalogue.{name}" for name in ("entry", "columns", "credits")}
    identity = "soulspot.infrastructure.persistence.identity"

    imported = set[str]().union(*map(graph.find_modules_directly_imported_by, {*translation, identity}))

    assert imported - translation - sys.stdlib_module_names == {"soulspot.infrastructure.tags", identity}
