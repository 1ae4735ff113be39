"""The layout of the source tree: few entries at the top, no import or callback cycles, every package documented."""

import ast
import pkgutil
import re
import sys
from collections.abc import Iterator
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
def test_no_package_has_an_import_cycle_among_its_members(package: str) -> None:
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
def test_each_package_has_a_docstring(package: str) -> None:
    text = (SOURCE.parent / package.replace(".", "/") / "__init__.py").read_text()

    assert text.startswith('"""'), f"{package}/__init__.py describes its content and what may import it"


def test_translating_tags_imports_only_the_tag_model_and_the_stdlib() -> None:
    graph = grimp.build_graph("soulspot", include_external_packages=True)
    translation = {f"soulspot.ingest.catalogue.{name}" for name in ("entry", "columns", "credits")}
    identity = "soulspot.infrastructure.persistence.identity"

    imported = set[str]().union(*map(graph.find_modules_directly_imported_by, {*translation, identity}))

    assert imported - translation - sys.stdlib_module_names == {"soulspot.infrastructure.tags", identity}


def names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
INGEST = [SOURCE / "bootstrap.py", *sorted((SOURCE / "ingest").rglob("*.py"))]
MODULES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in INGEST}
CALLBACK_TYPES = {"Callable"} | {
    target.id
    for tree in MODULES.values()
    for node in tree.body
    if isinstance(node, ast.Assign) and "Callable" in names_in(node.value)
    for target in node.targets
    if isinstance(target, ast.Name)
}


def test_the_check_finds_a_callback_to_an_object_built_later() -> None:
    written = """
class Stage:
    def connect(self, watched: Callable[[], object] | None, name: str):
        self._name = name
        self._watched, self._other = watched, name

def build():
    def is_quiet():
        return later.is_quiet

    stage = Stage(is_quiet=is_quiet)
    stage = Stage(lambda: later.is_quiet)
    stage.on_blind = lambda: later.cover()
"""

    assert sorted(later_callbacks(ast.parse(written))) == [5, 11, 12, 13]


@pytest.mark.parametrize("module", MODULES)
def test_no_object_of_the_ingest_calls_one_built_after_it(module: str) -> None:
    assert list(later_callbacks(MODULES[module])) == []


def later_callbacks(tree: ast.Module) -> Iterator[int]:
    """Yield the line of each lambda or closure passed to a class, and of each callback set once an object is built."""
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    closures = {
        inner.name
        for outer in functions
        for inner in ast.walk(outer)
        if isinstance(inner, FUNCTIONS) and inner is not outer
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name.lstrip("_")[:1].isupper():
                arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
                if any(map(has_lambda, arguments)) or any(closures & names_in(each) for each in arguments):
                    yield node.lineno
            case ast.ClassDef():
                for method in node.body:
                    if isinstance(method, FUNCTIONS) and method.name != "__init__":
                        yield from callbacks_set_in(method)
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner))], value=ast.Lambda()) if owner != "self":
                yield node.lineno


def callbacks_set_in(method: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    """Yield the line of each assignment of a callback argument of a method to an attribute of its object."""
    parameters = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
    callbacks = {each.arg for each in parameters if each.annotation and CALLBACK_TYPES & names_in(each.annotation)}
    for node in ast.walk(method):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_attribute = any(isinstance(each, ast.Attribute) for target in targets for each in ast.walk(target))
            if is_attribute and (callbacks & names_in(node.value) or has_lambda(node.value)):
                yield node.lineno


def has_lambda(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Lambda) for each in ast.walk(node))


def test_every_asyncio_task_has_a_name() -> None:
    unnamed = [f"{path.relative_to(SOURCE)}:{line}" for path in SOURCE.rglob("*.py") for line in _unnamed_tasks(path)]

    assert not unnamed, "a dump of a stuck daemon needs names: add name="


def _unnamed_tasks(path: Path) -> list[int]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    tasks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in MAKES_A_TASK]
    return [call.lineno for call in tasks if "name" not in {keyword.arg for keyword in call.keywords}]


def test_the_documented_walk_of_a_file_names_existing_functions() -> None:
    text = (SOURCE.parents[1] / "docs" / "design.md").read_text()
    walk = text.partition("<!-- walk -->")[2].partition("<!-- /walk -->")[0]
    steps = re.findall(r"^\| \d+ \| `([\w.]+)` \|", walk, re.MULTILINE)

    assert 1 <= len(steps) <= 10
    for step in steps:
        assert callable(pkgutil.resolve_name(step)), step
