"""The rules of docs/architecture.md that the import contracts of pyproject.toml cannot say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages import STAGES

PACKAGE = Path(__file__).parents[1] / "pipeline"
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
    if (PACKAGE / "estimator") not in path.parents:
        assert not {name for name in imports(path) if name.split(".")[0] in {"tensorflow", "keras"}}


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_stage_knows_folders_not_stores(path):
    forbidden = {"pipeline.store", "pipeline.runs", "pipeline.runner", "pipeline.registry", "fsspec", "airflow"}
    assert not forbidden & set(imports(path))


def test_every_stage_has_a_module_of_its_name_and_needs_only_earlier_ones():
    names = list(STAGES)
    assert {path.stem for path in (PACKAGE / "stages").glob("[!_]*.py")} == set(names)
    for at, stage in enumerate(STAGES.values()):
        assert set(stage.needs) <= set(names[:at])


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.runner"])
def test_what_the_dag_and_the_command_line_import_is_light(module):
    heavy = "{'tensorflow', 'pandas', 'pyarrow', 'sklearn', 'scipy', 'matplotlib', 'airflow'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_module_is_longer_than_one_sitting():
    assert {
        path.name: len(path.read_text().splitlines()) for path in MODULES if len(path.read_text().splitlines()) > 400
    } == {}
