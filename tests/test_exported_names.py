"""What the package offers by name is there and says what it is; docstrings name no argument that does not exist."""

import ast
import re
from collections.abc import Iterator

import pytest
from test_floors import FILES, floor

import codsa_ray

LOWER = {file: text for file, text in FILES.items() if floor(file) <= 2}
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
ENTRY = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:(.*)$")
SECTION = re.compile(r"^(Args|Returns|Raises|Yields):(.*)$")


@pytest.mark.parametrize("name", codsa_ray.__all__)
def test_every_exported_name_imports_and_says_what_it_is(name: str) -> None:
    found = getattr(codsa_ray, name)
    assert found.__doc__
    assert found.__doc__.strip()
    assert found.__module__ == f"codsa_ray.{codsa_ray._HOMES[name]}"


def test_the_list_of_names_is_sorted_whole_and_the_only_one() -> None:
    assert list(codsa_ray.__all__) == sorted(codsa_ray.__all__)
    assert set(codsa_ray.__all__) == set(codsa_ray._HOMES)
    with pytest.raises(AttributeError, match="nonsense"):
        codsa_ray.nonsense  # noqa: B018


def public(text: str) -> Iterator[tuple[str, Definition]]:
    """(dotted name, node) of public classes, their public methods and properties, and public functions."""
    for node in ast.parse(text).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                parts = (part for part in node.body if isinstance(part, Definition) and not part.name.startswith("_"))
                yield from ((f"{node.name}.{part.name}", part) for part in parts)


def sections(docstring: str) -> dict[str, list[str]]:
    """Lines of each section (Args, Returns, Raises, Yields)."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in docstring.splitlines():
        if start := SECTION.match(line):
            lines = found.setdefault(start[1], [])
            lines += [start[2]] if start[2].strip() else []
        elif line.strip() and not line.startswith(" "):
            lines = []
        else:
            lines += [line] if line.strip() else []
    return found


def arguments(node: Definition) -> set[str]:
    """Names that Args may explain: parameters, or a class's fields and those of its __init__."""
    if isinstance(node, ast.ClassDef):
        fields = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)}
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        return fields.union(*(arguments(part) for part in made))
    spec = node.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
    return {argument.arg for argument in every}


def flaws(file: str, text: str) -> list[str]:
    """Public names without a docstring, empty sections, empty entries, entries for what is no argument."""
    found = []
    for name, node in public(text):
        docstring = ast.get_docstring(node)
        if not docstring:
            found.append(f"{file} {name} has no docstring")
            continue
        for section, lines in sections(docstring).items():
            if not lines:
                found.append(f"{file} {name} has an empty {section}")
            for entry in filter(None, map(ENTRY.match, lines if section == "Args" else [])):
                unknown = {word.strip("* ") for word in entry[1].split(",")} - arguments(node)
                found += [f"{file} {name} explains {word}, which it does not take" for word in sorted(unknown)]
                if not entry[2].strip():
                    found.append(f"{file} {name} says nothing of {entry[1]}")
    return found


@pytest.mark.parametrize("file", LOWER)
def test_public_names_of_the_lower_floors_say_what_they_are(file: str) -> None:
    assert flaws(file, LOWER[file]) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f(): pass",
        "class A:\n    '''A.'''\n    def f(self): pass",
        "def f(x):\n    '''F.\n\n    Args:\n    '''",
        "def f(x):\n    '''F.\n\n    Args:\n        y: no such thing.\n    '''",
        "def f(x):\n    '''F.\n\n    Args:\n        x:\n    '''",
        "class A:\n    '''A.\n\n    Args:\n        x, z: one of them is gone.\n    '''\n    x: int",
    ],
)
def test_each_flaw_is_found(text: str) -> None:
    assert len(flaws("any.py", text)) == 1


def test_what_is_fine_is_left_alone() -> None:
    text = "class A:\n    '''A.\n\n    Args:\n        x (int): a number:\n            of things.\n    '''\n    x: int\n    def _f(self): 1"
    assert flaws("any.py", text) == []
