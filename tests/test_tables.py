"""The tables and lists of the pages that repeat what the code says: each says the same as the code, cell by cell.

After a change of the code, put the rows of a failing test's message into the page.
"""

import ast
import itertools
import re
import tomllib
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from pipeline import errors
from pipeline.cli import app, run_and_exit
from pipeline.run import cache_keys
from pipeline.settings import Deployment, Settings, Tuning
from pipeline.settings.tuning import SEARCHABLE
from pipeline.stages.plan import STAGES, Stage

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "explanation" / "architecture.md").read_text()
COMMANDS = (DOCS / "reference" / "command-line.md").read_text()
STAGES_PAGE = (DOCS / "reference" / "stages.md").read_text()
SERVE = (DOCS / "how-to" / "serve.md").read_text()
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for glob in ("*.md", "docs/**/*.md", "*/README.md")
    for page in ROOT.glob(glob)
    if page.name != "CHANGELOG.md"
}
TAGGER = get_command(app).commands


def table(page: str, *header: str) -> list[str]:
    """The rows below the header that begins with these cells."""
    begin = f"| {' | '.join(header)} |"
    [at] = [number for number, line in enumerate(page.splitlines()) if line.startswith(begin)]
    rows = []
    for line in page.splitlines()[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    return rows


def same(rows: list[str], expected: list[str]) -> None:
    assert rows == expected, "the rows are now\n" + "\n".join(expected)


def names(values: object) -> str:
    """The names as a cell has them; a dash for none."""
    return ", ".join(f"`{value}`" for value in values) or "-"


def quoted(text: str) -> list[str]:
    return re.findall("`([^`]+)`", text)


# Stages


SAYS = [field.name for field in fields(Stage) if field.type is bool and field.name != "by_cluster"]
"""The fields of an entry that say that something is so of its stage, and have a column of the table together."""


def wiring(stage: Stage) -> str:
    together = "a cluster" if stage.by_cluster else names([stage.sharded_by] if stage.sharded_by else [])
    says = [name for name in SAYS if getattr(stage, name)]
    return f"| `{stage.name}` | {names(stage.needs)} | {names(stage.further_inputs)} | {names(says)} | {together} |"


def test_the_table_of_stages_says_what_each_does():
    rows = [row.split(" | ") for row in table(STAGES_PAGE, "stage", "does")]
    same([" | ".join(row[:2]) for row in rows], [f"| `{stage.name}` | {stage.does}" for stage in STAGES.values()])


def test_the_table_of_the_entries_is_the_plan():
    same(table(STAGES_PAGE, "stage", "needs"), [wiring(stage) for stage in STAGES.values()])


def test_the_settings_that_stages_read_are_those_of_the_plan():
    same(
        table(STAGES_PAGE, "stage", "settings that it reads"),
        [f"| `{stage.name}` | {names(stage.reads)} |" for stage in STAGES.values()],
    )


def test_the_table_of_fields_has_every_field_and_its_values():
    cells = [row.split(" | ") for row in table(STAGES_PAGE, "field")]
    assert {name for row in cells for name in quoted(row[0])} == {field.name for field in fields(Stage)}
    [says] = [row[1] for row in cells if "further_inputs" in quoted(row[0])]
    assert set(quoted(says)) == {value for stage in STAGES.values() for value in stage.further_inputs}


# Architecture


def packages() -> set[str]:
    return {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "pipeline").iterdir()
        if not path.name.startswith("_")
    }


def imported() -> dict[str, set[str]]:
    """Of each package or module of `pipeline/`, and of dags and plugins, what it imports of the others."""
    found = defaultdict(set)
    for folder in ("pipeline", "dags", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT / folder).parts
            own = inside[0].removesuffix(".py") if folder == "pipeline" else folder
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    top, *inner = node.module.split(".")
                    if top == "pipeline":
                        found[own] |= {inner[0]} if inner else {alias.name for alias in node.names}
                    elif top == "tagger_airflow":
                        found[own].add("dags")
    return {own: others - {own} for own, others in found.items() if own != "__init__"}


def drawn() -> tuple[dict[str, set[str]], set[str]]:
    """The arrows of the diagram, and the modules that it joins as ground."""
    diagram = re.search(r"```mermaid\n(.*?)```", ARCHITECTURE, flags=re.S)[1]
    [ground] = re.findall(r"^    ground\[(.+)\]$", diagram, flags=re.M)
    arrows = defaultdict(set)
    for line in re.sub(r"\[[^\]]*\]", "", diagram).splitlines():
        steps = [[name.strip() for name in step.split("&")] for step in line.split("-->")]
        for ones, others in itertools.pairwise(steps):
            for one in ones:
                arrows[one] |= set(others)
    return arrows, set(ground.split(", "))


def reachable(arrows: dict[str, set[str]], start: str) -> set[str]:
    found, open_ends = set(), [start]
    while open_ends:
        for other in arrows.get(open_ends.pop(), set()) - found:
            found.add(other)
            open_ends.append(other)
    return found


def test_the_diagram_draws_imports_that_there_are_and_leaves_none_out():
    """An import that follows from several arrows need not have one of its own."""
    arrows, ground = drawn()
    real = defaultdict(set)
    for own, others in imported().items():
        if own not in ground:
            real[own] = {"ground" if other in ground else other for other in others}
    assert {one: others - real[one] for one, others in arrows.items() if others - real[one]} == {}
    assert {
        one: others - reachable(arrows, one) for one, others in real.items() if others - reachable(arrows, one)
    } == {}


def test_the_table_of_packages_has_each_and_no_other():
    assert {
        name for row in table(ARCHITECTURE, "package of `pipeline/`") for name in quoted(row.split(" | ")[0])
    } == packages()


def test_the_contracts_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = {row.split(" | ")[0][2:]: row for row in table(ARCHITECTURE, "contract")}
    assert list(rows) == [contract["name"] for contract in contracts]
    layers = [name for layer in contracts[0]["layers"] for name in layer.split(" | ")]
    assert [name for name in quoted(rows["Imports point down"]) if name in layers] == layers


def test_who_imports_run_is_who_does():
    [row] = [row for row in table(ARCHITECTURE, "contract") if "Only those who run stages" in row]
    importers = {own for own, others in imported().items() if "run" in others} - {"dags", "plugins"}
    assert set(quoted(row.rpartition("only ")[2])) == importers


def test_what_else_a_cache_key_depends_on_is_what_the_code_asks():
    assert [quoted(row)[0] for row in table(ARCHITECTURE, "also in the key")] == list(cache_keys.EXTRAS)


def test_the_packages_in_a_cache_key_are_named():
    [line] = [line for line in ARCHITECTURE.splitlines() if line.startswith("- this package's code")]
    assert tuple(quoted(line)) == cache_keys.PACKAGES


def dag_ids() -> set[str]:
    return {path.stem for path in (ROOT / "dags").glob("*.py")}


def test_the_pages_name_dags_and_assets_that_there_are():
    assert set(re.findall(r"`(stackoverflow_tagger\w*)`", ARCHITECTURE)) == dag_ids()
    assets = (ROOT / "dags" / "tagger_airflow" / "assets.py").read_text()
    known = dag_ids() | set(re.findall(r'"(stackoverflow_tagger_\w+)"', assets))
    named = {(page, name) for page, text in PAGES.items() for name in re.findall(r"\bstackoverflow_tagger_\w+", text)}
    assert {(page, name) for page, name in named if name not in known} == set()


# The command line


def test_the_commands_are_in_the_order_of_the_help():
    assert [quoted(row)[0].removeprefix("tagger ") for row in table(COMMANDS, "command")] == list(TAGGER)


def with_option(option: str) -> set[str]:
    return {name for name, command in TAGGER.items() if any(option in parameter.opts for parameter in command.params)}


def test_the_commands_with_an_option_are_those_that_the_page_names():
    [json] = [line for line in COMMANDS.splitlines() if line.endswith("print JSON with `--json`.")]
    assert set(quoted(json)) - {"--json"} == with_option("--json")
    [store] = [line for line in COMMANDS.splitlines() if "take `--store`" in line]
    assert set(quoted(store.partition("all but")[2])[:1]) == set(TAGGER) - with_option("--store")


def refuses_a_missing_store(name: str, store: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the command, with all that it must be given, says that there is no store."""
    given = []
    for parameter in TAGGER[name].params:
        if parameter.required:
            options = [] if parameter.param_type_name == "argument" else parameter.opts[:1]
            given += [*options, "1", *(["2"] if parameter.nargs < 0 else [])]
    with pytest.raises(SystemExit) as ended:
        run_and_exit(lambda: app([name, "--store", str(store), *given], standalone_mode=False))
    return ended.value.code == 2 and "there is no store at" in capsys.readouterr().err


def test_the_commands_that_refuse_a_missing_store_are_those_that_the_page_names(tmp_path, capsys):
    [line] = re.findall(r"^- (.+?) refuse a store that is not there", COMMANDS, flags=re.M | re.S)
    makes = {"run", "tune", "settings"}
    refusing = {name for name in set(TAGGER) - makes if refuses_a_missing_store(name, tmp_path / "none", capsys)}
    assert set(quoted(line.rpartition("\n- ")[2])) == refusing


def test_each_exit_status_has_its_errors():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TaggerError)]
    by_status = defaultdict(list)
    for kind in kinds:
        by_status[kind.exit_status].append(kind.__name__)
    rows = [row.strip("| ").split(" | ") for row in table(COMMANDS, "status")]
    same(
        [f"{row[0]}: {row[2]}" for row in rows],
        ["0: -"] + [f"{status}: {names(by_status[status])}" for status in sorted(by_status)],
    )


def test_the_tree_of_errors_says_the_exit_status_of_each():
    tree = dict(re.findall(r"(\w+) +exit (\d)", errors.__doc__))
    assert {name: int(status) for name, status in tree.items()} == {
        name: kind.exit_status
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.TaggerError)
    }


# Settings and variables


VARIABLES = {f"TAGGER_{name.upper()}" for kind in (Settings, Deployment, Tuning) for name in kind.model_fields}
PLACEHOLDERS = {"TAGGER_NAME"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_variables_and_settings_that_there_are(page):
    variables = set(re.findall(r"\bTAGGER_[A-Z][A-Z_]*[A-Z]\b", PAGES[page]))
    assert variables - VARIABLES - PLACEHOLDERS == set()
    given = {f"TAGGER_{name.upper()}" for name in re.findall(r"--set (\w+)=", PAGES[page])}
    assert given - VARIABLES - PLACEHOLDERS == set()


def test_what_can_be_searched_is_what_the_page_lists():
    [sentence] = re.findall(r"Searched can be (.+?)\.", (DOCS / "how-to" / "tune.md").read_text(), flags=re.S)
    assert tuple(quoted(sentence)) == SEARCHABLE


def test_the_ways_to_be_told_are_those_of_the_code():
    notify = ast.parse((ROOT / "dags" / "tagger_airflow" / "notify.py").read_text())
    [channels] = [
        node.value
        for node in notify.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHANNELS"
    ]
    kinds = [key.value for key in channels.keys]
    [line] = re.findall(r"export TAGGER_NOTIFY=(.+)", PAGES["docs/how-to/operate.md"])
    assert re.findall(r"(\w+):", line) == kinds
    packages = [ast.literal_eval(channel.args[0]).rpartition("-")[2] for channel in channels.values]
    assert packages == kinds


# The server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that has not begun, on an empty store."""
    from pipeline.registry.registry import Registry
    from pipeline.server.app import Server
    from pipeline.server.listen import Listen
    from pipeline.server.recording import Recorder
    from pipeline.store.objects import Store

    store = Store(str(tmp_path_factory.mktemp("server")))
    return Server(Registry(store), Listen(), recorder=Recorder(store, 1.0, keep_text=True))


def test_the_page_of_the_server_has_its_routes_and_no_other(server):
    """A version may be named behind the model; the page has that in a column of its own."""
    methods, named = {}, defaultdict(list)
    for route in server._router().routes:
        path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: found[1].upper(), route.path)
        plain = re.sub(r"/(versions|labels)/[A-Z]+", "", path)
        methods[plain] = ", ".join(sorted(route.methods - {"HEAD"}))
        named[plain] += re.findall(r"/(?:versions|labels)/[A-Z]+", path)
    rows = [f"| `{path}` | {methods[path]} | {names(named[path])}" for path in methods]
    same([" | ".join(row.split(" | ")[:3]) for row in table(SERVE, "path")], rows)


def test_the_page_of_the_server_has_its_metrics_and_no_other(server):
    rows = [
        f"| `{metric.name}{'_total' * (metric.type == 'counter')}` | {metric.documentation} |"
        for metric in server.metrics.registry.collect()
    ]
    same(table(SERVE, "metric"), rows)


# Make


def targets() -> set[str]:
    [line] = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    return set(line.split())


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_targets_of_make_that_there_are(page):
    assert set(re.findall(r"(?:`|^    |&& )make ([a-z]+)", PAGES[page], flags=re.M)) <= targets()


def test_the_help_of_make_has_every_target_that_a_person_calls():
    named = set(re.findall(r"@echo 'make ([a-z]+)", (ROOT / "Makefile").read_text()))
    assert named | {"help", "install", "emulator", "clients", "code", "clean"} == targets()
