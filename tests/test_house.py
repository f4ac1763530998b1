"""The rules of docs/explanation/architecture.md that the import contracts of pyproject.toml cannot say."""

import ast
import configparser
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from pipeline.stages.plan import STAGES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Every module that the file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_tensorflow_stays_in_its_room(path):
    if (PACKAGE / "model") not in path.parents:
        assert not {name for name in imports(path) if name.split(".")[0] in {"tensorflow", "keras"}}


def test_every_stage_has_a_module_of_its_name_and_needs_only_earlier_ones():
    names = list(STAGES)
    assert {path.stem for path in (PACKAGE / "stages").glob("[!_]*.py")} == {
        *names,
        "accounting",
        "answers",
        "context",
        "model_card",
        "plan",
    }
    for at, stage in enumerate(STAGES.values()):
        assert set(stage.needs) <= set(names[:at])


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.run.runner"])
def test_what_the_dag_and_the_command_line_import_is_light(module):
    heavy = "{'tensorflow', 'pandas', 'pyarrow', 'sklearn', 'scipy', 'matplotlib', 'airflow'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("module", ["server.app", "scoring.predict", "scoring.watch"])
def test_what_asks_a_published_model_imports_nothing_that_trains(module):
    training = "{'tensorflow', 'tensorflow_serving', 'pandas', 'sklearn', 'matplotlib', 'airflow', 'optuna'}"
    code = f"import sys, pipeline.{module}; print(sorted({training} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_module_is_longer_than_one_sitting():
    assert {
        path.name: len(path.read_text().splitlines()) for path in MODULES if len(path.read_text().splitlines()) > 400
    } == {}


OURS = [
    path
    for folder in ("pipeline", "dags", "plugins", "docker", "tests", "benchmarks", "tools")
    for path in ROOT.glob(f"{folder}/**/*.py")
]

PICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "yaml"}
"""Modules that run what they read, or do so unless told otherwise."""

RUNNING = {
    *("eval", "exec", "allow_pickle", "read_pickle", "to_pickle"),
    *("load_model", "load_weights", "model_from_json", "model_from_config", "model_from_yaml", "utils.get_file"),
    *("ParseDict", "extractall"),
}
"""Names of what runs, or can be made to run, what it reads; SECURITY.md's table relies on their absence."""


def calls(path):
    """Everything that the file calls, by its last two names and by its last, and every argument that it names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            *_, owner, name = ["", *ast.unparse(node.func).split(".")]
            yield from (name, f"{owner}.{name}", *(keyword.arg for keyword in node.keywords))


def test_nothing_that_is_read_is_run():
    named = {path.relative_to(ROOT): {name.split(".")[0] for name in imports(path)} & PICKLING for path in OURS}
    called = {path.relative_to(ROOT): set(calls(path)) & RUNNING for path in OURS}
    assert {path: names for found in (named, called) for path, names in found.items() if names} == {}


def test_each_exception_from_the_security_rules_has_its_reason():
    """Of ruff's S rules, in the sources and in pyproject.toml, where they are on for everything."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdigit()] == []
    lines = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if re.search(r'"S\d+"', line)]
    assert len(lines) == sum(
        any(re.match(r"S\d", rule) for rule in rules) for rules in lint["per-file-ignores"].values()
    )
    assert [line for line in lines if " # " not in line] == []
    comments = [
        token.string
        for path in OURS
        for token in tokenize.generate_tokens(path.open().readline)
        if token.type == tokenize.COMMENT and "noqa" in token.string
    ]
    assert comments
    assert [comment for comment in comments if re.search(r"noqa(?!: )|\bS\d+(?!.* - \w)", comment)] == []


def test_a_token_is_compared_in_constant_time():
    """A comparison by `==` or `in` tells by its time how much of a guess is right."""
    unsafe = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
    compared = [
        ast.unparse(node)
        for path in (PACKAGE / "server").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and any(isinstance(operator, unsafe) for operator in node.ops)
        if any("token" in name for name in re.findall(r"\w+", ast.unparse(node)))
    ]
    assert compared == []
    assert "hmac.compare_digest" in set(calls(PACKAGE / "server" / "guard.py"))


STORED = re.compile(r"[\w-][\w.-]*\.(?:json|txt|parquet|md|png|sig|tfevents)\b")
"""A file's name with one of the endings that files in the store have."""


def strings(tree):
    """Every string of the code with its line, docstrings excepted."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_the_name_of_a_stored_file_is_written_once():
    """Where it is needed a second time, it is a constant of the module that owns the file."""
    places = defaultdict(list)
    for path in (*MODULES, *(ROOT / "dags").rglob("*.py")):
        for line, string in strings(ast.parse(path.read_text())):
            for name in STORED.findall(string):
                places[name].append(f"{path.relative_to(ROOT)}:{line}")
    assert {"manifest.json", "run.json", "card.json", "labels.txt"} <= set(places)
    assert {name: lines for name, lines in places.items() if len(lines) > 1} == {}


def test_airflow_keeps_its_secrets():
    config = configparser.ConfigParser()
    config.read(ROOT / "airflow.cfg")
    given = {option: value for section in config.sections() for option, value in config[section].items()}
    assert given.get("expose_config", "False") == "False"
    assert given.get("simple_auth_manager_all_admins", "False") == "False"
    assert not [option for option in given if re.search("secret|key|password|sql_alchemy_conn|result_backend", option)]
    assert given["host"] == "127.0.0.1"


def test_nothing_kept_in_git_can_be_written_by_everybody():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    assert not [name for name in names if (ROOT / name).stat().st_mode & 0o002]
