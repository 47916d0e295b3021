"""Who may import whom, what may never be called, and how long things may get: read from the source with ast."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "codsa_ray"
FILES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}

# A file imports from lower floors, and from its own where that is in OWN.
FOLDERS = {"nn": 1.0, "generators": 2.0, "strata": 2.0, "allocators": 2.0, "learners": 2.0, "stages": 3.0, "audit": 4.0, "report": 4.1}
NAMED = {
    "local.py": 4.2,
    "pipeline.py": 4.2,
    "kept.py": 4.1,
    "more.py": 4.2,
    "model.py": 4.1,
    "inspection.py": 4.3,
    "training.py": 4.3,
    "scale.py": 4.3,
    "vtss.py": 4.3,
    "cli.py": 5.0,
    "sampler.py": 5.0,
    "console.py": 5.0,
    "doctor.py": 5.0,
    "estimate.py": 5.0,
    "tracking.py": 5.0,
}
FACE = {"__init__.py": 6.0, "__main__.py": 6.0}
OWN = {0.0, 1.0, 3.0, 4.0, 4.1, 5.0, 6.0}

FACTS = {"numpy", "scipy", "pyarrow", "pandas", "safetensors", "sqlglot", "filelock", "PIL"}
MODELS = {*FACTS, "torch", "sklearn", "imblearn", "xgboost", "threadpoolctl", "diffusers", "transformers", "peft"}
THIRD_PARTY = {0: FACTS, 1: {*FACTS, "torch", "tokenizers", "transformers", "peft", "diffusers"}, 2: MODELS, 3: {*MODELS, "ray", "optuna"}}
THIRD_PARTY[4] = {*MODELS, "jinja2", "markupsafe"}
THIRD_PARTY[5] = THIRD_PARTY[6] = {*THIRD_PARTY[4], "mlflow"}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "imblearn": "imbalanced-learn", "mlflow": "mlflow-skinny", "PIL": "pillow"}

UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "_pickle"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
# Why a file may do what others may not.
EXCEPTIONS = {
    ("stages/cluster.py", "cloudpickle"): "results travel between this run's own workers, never through a file",
    ("plugins.py", "import_module"): "imports the package's own plug-ins, found by walking its folders",
    ("__init__.py", "import_module"): "fetches the package's own public names when they are asked for",
    ("learners/sklearn.py", "import_module"): "imports an estimator that the user names on the command line",
}
LONGEST_FUNCTION = 60
LONGEST_FILE = 400


def floor(file: str) -> float:
    """The floor of a file, by its path inside the package."""
    folder, inside, _ = file.partition("/")
    if inside:
        return FOLDERS[folder]
    return {**NAMED, **FACE}.get(file, 0.0)


def imports(file: str, tree: ast.AST) -> Iterator[str]:
    """Dotted names of every module imported anywhere in the file, relative ones resolved."""
    package = ["codsa_ray", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
                if node.level
                else str(node.module)
            )
            inside = [alias.name for alias in node.names if base.partition(".")[0] == "codsa_ray" and file_of(f"{base}.{alias.name}")]
            yield from (f"{base}.{name}" for name in inside)
            if len(inside) < len(node.names):
                yield base


def file_of(module: str) -> str | None:
    """The package's file that a dotted name means."""
    path = "/".join(module.split(".")[1:])
    return next((file for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if file in FILES), None)


def broken_floors(file: str, text: str) -> list[str]:
    """Imports that point up, sideways, outside of what the floor may use, or nowhere."""
    found, mine = [], floor(file)
    for module in imports(file, ast.parse(text)):
        top = module.partition(".")[0]
        if top == "codsa_ray":
            other = file_of(module)
            if other is None:
                found.append(f"{file} imports {module}, which is not there")
            elif other != file and (floor(other) > mine or (floor(other) == mine and mine not in OWN)):
                found.append(f"{file} (floor {mine:g}) imports {other} (floor {floor(other):g})")
        elif top not in sys.stdlib_module_names and top not in THIRD_PARTY[int(mine)]:
            found.append(f"{file} (floor {mine:g}) imports {top}")
    return found


def dangers(file: str, text: str) -> list[str]:
    """Ways to run what data say: unpicklers, eval and its kin, imports by name, remote code."""
    found = []
    for node in ast.walk(ast.parse(text)):
        words: set[str] = set()
        if isinstance(node, ast.Import | ast.ImportFrom):
            words = {part for name in [getattr(node, "module", "") or "", *(a.name for a in node.names)] for part in name.split(".")}
            words &= {*UNPICKLERS, "import_module"}
        elif isinstance(node, ast.Name) and node.id in RUNNERS:
            words = {node.id}
        elif isinstance(node, ast.Attribute) and node.attr in {"import_module", "read_pickle", *UNPICKLERS}:
            words = {node.attr}
        elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle", "weights_only"):
            safe = isinstance(node.value, ast.Constant) and node.value.value is (node.arg == "weights_only")
            words = set() if safe else {node.arg}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            words = set() if any(k.arg == "weights_only" for k in node.keywords) else {"torch.load"}
        found += [f"{file}:{node.lineno} {word}" for word in sorted(words) if (file, word) not in EXCEPTIONS]
    return found


def overlong(file: str, text: str) -> list[str]:
    """Files and functions beyond the end."""
    lines = len(text.splitlines())
    found = [f"{file} has {lines} lines"] if lines > LONGEST_FILE else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = int(node.end_lineno or 0) - node.lineno + 1
            found += [f"{file}:{node.lineno} {node.name} has {length} lines"] if length > LONGEST_FUNCTION else []
    return found


def loaded_at_once(tree: ast.Module) -> ast.Module:
    """The module without its functions and without imports for types alone: what runs on import."""
    kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    kept = [node for node in kept if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    for node in kept:
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)] or [ast.Pass()]
    return ast.Module(kept, [])


def cycle(files: dict[str, str]) -> list[str]:
    """Files that import each other in a circle while they are loaded, or nothing."""
    graph = {
        file: {file_of(module) for module in imports(file, loaded_at_once(ast.parse(text)))} - {None, file} for file, text in files.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("file", FILES)
def test_imports_point_down(file: str) -> None:
    assert broken_floors(file, FILES[file]) == []


@pytest.mark.parametrize("file", FILES)
def test_nothing_that_is_read_is_ever_run(file: str) -> None:
    assert dangers(file, FILES[file]) == []


@pytest.mark.parametrize("file", FILES)
def test_files_and_functions_are_short(file: str) -> None:
    assert overlong(file, FILES[file]) == []


def test_no_file_needs_itself_to_load() -> None:
    assert cycle(FILES) == []


def test_every_folder_has_a_floor() -> None:
    assert {file.partition("/")[0] for file in FILES if "/" in file} <= set(FOLDERS)


def test_only_the_stages_know_the_cluster() -> None:
    using = {file for file, text in FILES.items() if any(module.partition(".")[0] == "ray" for module in imports(file, ast.parse(text)))}
    assert using
    assert all(file.startswith("stages/") for file in using)


def test_every_import_is_declared() -> None:
    """A package that only comes along with another may leave with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for name, extra in project["optional-dependencies"].items() if name != "dev" for requirement in extra]
    declared = {requirement.split("[")[0].split(">")[0].split("=")[0].strip() for requirement in [*project["dependencies"], *extras]}
    used = {module.partition(".")[0] for file, text in FILES.items() for module in imports(file, ast.parse(text))}
    outside = used - set(sys.stdlib_module_names) - {"codsa_ray"}
    assert {DISTRIBUTIONS.get(name, name) for name in outside} - declared == set()


def test_exceptions_are_still_needed() -> None:
    """An exception that no file uses any more is taken out of the list."""
    for file, word in EXCEPTIONS:
        assert word in FILES.get(file, "")


# --- each check is shown to fail


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plan.py", "from codsa_ray.nn import schedules"),
        ("plan.py", "def f():\n    import codsa_ray.stages.read"),
        ("plan.py", "from codsa_ray import pipeline"),
        ("plan.py", "from codsa_ray import run"),
        ("plan.py", "from .nn import schedules"),
        ("plan.py", "import torch"),
        ("plan.py", "import sklearn.tree"),
        ("plan.py", "from codsa_ray.nowhere import x"),
        ("plan.py", "if TYPE_CHECKING:\n    from codsa_ray.learners.boosted import Boosted"),
        ("nn/schedules.py", "from codsa_ray.generators.bootstrap import Bootstrap"),
        ("nn/schedules.py", "import xgboost"),
        ("allocators/balanced.py", "from codsa_ray.allocators.proportional import Proportional"),
        ("allocators/balanced.py", "from . import proportional"),
        ("generators/bootstrap.py", "from codsa_ray.learners.boosted import Boosted"),
        ("generators/bootstrap.py", "import ray"),
        ("learners/boosted.py", "from ray import tune"),
        ("stages/read.py", "from codsa_ray.audit.nearest import nearest"),
        ("stages/read.py", "from codsa_ray.pipeline import run"),
        ("audit/nearest.py", "from codsa_ray.report.page import page"),
        ("report/page.py", "from codsa_ray.pipeline import run"),
        ("pipeline.py", "from codsa_ray.cli import main"),
        ("pipeline.py", "import ray"),
        ("pipeline.py", "import flask"),
    ],
)
def test_an_import_up_sideways_or_outside_is_found(file: str, text: str) -> None:
    assert len(broken_floors(file, text)) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plan.py", "import json\nimport numpy as np\nfrom codsa_ray.errors import SettingError\nfrom . import errors"),
        ("nn/solvers.py", "import torch\nfrom codsa_ray.nn.schedules import x\nfrom . import schedules\nfrom ..plan import Plan"),
        ("learners/boosted.py", "import xgboost\nfrom codsa_ray.contracts import Needs\nfrom codsa_ray.nn import train"),
        ("stages/read.py", "import ray\nfrom codsa_ray.stages.cluster import spread\nfrom codsa_ray import plan"),
        ("pipeline.py", "from codsa_ray.report import page\nfrom codsa_ray.audit import nearest\nfrom codsa_ray.stages import read"),
    ],
)
def test_imports_down_and_within_are_fine(file: str, text: str) -> None:
    assert broken_floors(file, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import ray.cloudpickle as c",
        "from ray import cloudpickle",
        "x = eval('1')",
        "exec('1')",
        "run = __import__",
        "import importlib\nimportlib.import_module('x')",
        "from importlib import import_module",
        "load('x', trust_remote_code=True)",
        "load('x', trust_remote_code=flag)",
        "np.load('x', allow_pickle=True)",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "pd.read_pickle('x')",
    ],
)
def test_ways_to_run_what_data_say_are_found(text: str) -> None:
    assert len(dangers("stages/read.py", text)) == 1


def test_what_only_looks_dangerous_is_fine() -> None:
    for text in ("import importlib.metadata", "model.eval()", "ast.parse(t, mode='eval')", "np.load(x, allow_pickle=False)"):
        assert dangers("plan.py", text) == []
    assert dangers("plan.py", "torch.load(x, weights_only=True)") == []


def test_long_functions_and_files_are_found() -> None:
    body = "    x = 1\n"
    assert overlong("plan.py", "def f():\n" + body * (LONGEST_FUNCTION - 1)) == []
    assert len(overlong("plan.py", "class A:\n  def f(self):\n" + body * LONGEST_FUNCTION)) == 1
    assert overlong("plan.py", "x = 1\n" * LONGEST_FILE) == []
    assert len(overlong("plan.py", "x = 1\n" * (LONGEST_FILE + 1))) == 1


def test_circles_are_found_and_late_imports_are_none() -> None:
    circle = {"plan.py": "from codsa_ray.regions import Regions", "regions.py": "from codsa_ray.plan import Plan"}
    assert {"plan.py", "regions.py"} <= set(cycle(circle))
    late = {**circle, "plan.py": "def f():\n    from codsa_ray.regions import Regions"}
    assert cycle(late) == []
