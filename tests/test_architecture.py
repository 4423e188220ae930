"""The rules of the house, read off the source: who may import whom, and what has no place here."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "mumc_model": {"configs"},
    "protocol": set(),
    "configs": set(),
    "client": {"mumc_model", "protocol", "configs"},
    "server": {"mumc_model", "protocol", "configs"},
    "simulations": {"mumc_model", "protocol", "configs", "client", "server"},
}
WITHOUT_TORCH = ("protocol", "configs", "mumc_model.config", "client.config", "server.config", "mumc_model.evaluate")
MOST_LINES = 400
NAMELESS = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}

SOURCES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(source: str) -> Iterator[str]:
    """Every module that the source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def foreign_rooms(room: str, source: str) -> set[str]:
    """The rooms that a file in `room` imports and may not."""
    return {module.split(".")[0] for module in imports(source)} & MAY_IMPORT.keys() - MAY_IMPORT[room] - {room}


def unsafe(source: str) -> Iterator[str]:
    """What in the source could run code that data brings along."""
    yield from (module for module in imports(source) if module.split(".")[0] in UNSAFE_MODULES)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if (
                called in UNSAFE_CALLS
                or (called == "torch.load" and given.get("weights_only") != "True")
                or given.get("allow_pickle", "False") != "False"
                or given.get("shell", "False") != "False"
            ):
                yield called


def test_there_is_something_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == MAY_IMPORT.keys()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_imports_only_from_the_rooms_it_may(path):
    room = path.relative_to(ROOT).parts[0]
    assert foreign_rooms(room, path.read_text(encoding="utf-8")) == set()


def test_server_and_client_never_import_each_other():
    assert "client" not in MAY_IMPORT["server"]
    assert "server" not in MAY_IMPORT["client"]


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("mumc_model", "from protocol.codec import pack"),
        ("server", "def late():\n    import client.app"),
        ("protocol", "import configs"),
        ("configs", "import mumc_model"),
    ],
)
def test_an_import_from_a_forbidden_room_is_seen(room, source):
    assert foreign_rooms(room, source)


def test_architecture_md_shows_the_table_that_is_checked():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|$", text, flags=re.MULTILINE)
    written = {room: set(re.findall(r"`(\w+)`", rooms)) for room, rooms in rows}
    assert {room: written.get(room) for room in MAY_IMPORT} == MAY_IMPORT


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[-2] == "protocol"], ids=name)
def test_the_protocol_names_no_torch(path):
    heads = {module.split(".")[0] for module in imports(path.read_text(encoding="utf-8"))}
    assert not heads & {"torch", "timm", "transformers", "safetensors"}


def test_protocol_and_configuration_load_without_torch():
    modules = [m for m in WITHOUT_TORCH if m != "protocol"]
    modules += [f"protocol.{path.stem}" for path in sorted((ROOT / "protocol").glob("*.py")) if path.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_says_what_it_is_by_its_name_and_stays_readable(path):
    assert path.name not in NAMELESS
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_data_is_ever_run_as_code(path):
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_code_that_could_run_data_is_seen(source):
    assert list(unsafe(source))


def test_a_model_in_evaluation_mode_and_a_safe_load_are_not_mistaken_for_it():
    assert list(unsafe("model.eval()\ntorch.load(path, weights_only=True)\nyaml.safe_load(text)")) == []


def test_every_package_is_listed_and_every_listed_one_is_there():
    listed = set(PYPROJECT["tool"]["setuptools"]["packages"])
    found = {".".join(path.relative_to(ROOT).parts[:-1]) for path in SOURCES}
    assert listed == found
    assert all((ROOT / package.replace(".", "/") / "__init__.py").is_file() for package in listed)


def test_every_pattern_of_the_flower_bundle_matches_a_file():
    for pattern in PYPROJECT["tool"]["flwr"]["app"]["fab-include"]:
        assert any(ROOT.glob(pattern)), pattern


def test_tests_mirror_the_tree():
    of_the_whole = (ROOT / "tests", ROOT / "tests" / "e2e")
    for folder in (path for path in (ROOT / "tests").rglob("test_*.py") if path.parent not in of_the_whole):
        assert (ROOT / folder.parent.relative_to(ROOT / "tests")).is_dir(), name(folder)


def test_benchmarks_are_scripts_and_not_a_package():
    assert not (ROOT / "benchmarks" / "__init__.py").exists()
