"""Posts, tags, columns and reasons are shown as text everywhere: no control character, markup or template acts."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import BadInput, TaggerError
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY

NASTY = (
    "<script>alert(1)</script> \x1b[31m \x1b]0;title\x07 \x9b31m \x7f \u202e "
    "${HOME} {{ 7*7 }} [red] :warning: %s %(a)s {0}"
)
"""It has no line break, because tags with one are rejected."""

VISIBLE = ("<script>alert(1)</script>", "${HOME}", "{{ 7*7 }}", "[red]", ":warning:", "%s %(a)s {0}")
"""The parts of NASTY that must be shown unchanged."""

Tagger = Callable[..., tuple[int, str, str]]


def nasty_tag(tag: str) -> str:
    return f"{tag} {NASTY}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of all six stages on posts and tags that contain NASTY."""
    folder = tmp_path_factory.mktemp("escape_control")
    source = folder / "posts.csv"
    with source.open("w", newline="") as file:
        rows = [(f"{post} {NASTY}\nsecond\r\nlines\x1b[2J", nasty_tag(tag)) for post, tag in TINY]
        csv.writer(file).writerows([("post", "tags"), *rows])
    values = {"train_fraction": 0.75, "vocabulary_size": 60, "hidden_units": 8, "batch_size": 2, "min_accuracy": 0.5}
    this = Run(Store(str(folder / "store")), "a")
    this.begin(
        Settings.of(values | {"source": str(source), "epochs": 60, "force": "regression", "force_reason": NASTY}),
        CREATED,
    )
    for stage in STAGES:
        run_stage(stage, this)
    return this


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], run: Run) -> Tagger:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tagger", *arguments, "--store", run.store.url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capfd.readouterr()

    return call


def acting(text: str) -> list[str]:
    """The control and other unprintable characters of the text."""
    return [character for character in text if not character.isprintable() and character != "\n"]


def assert_escaped(text: str, *seen: str) -> None:
    assert acting(text) == []
    folded = re.sub(r"\s+", "", text)  # a table breaks long cells
    for part in seen:
        assert re.sub(r"\s+", "", part) in folded


def test_the_check_of_these_tests_can_fail():
    assert acting(NASTY) == ["\x1b", "\x1b", "\x07", "\x9b", "\x7f", "\u202e"]


def test_predict_escapes_control_characters_and_loses_nothing(tagger):
    post = f"how to open a file in python {NASTY}\nand more"
    status, out, _ = tagger("predict", post)
    assert status == 0
    assert_escaped(out, *VISIBLE)
    answer = json.loads(out)
    assert (answer["post"], answer["tag"]) == (post, nasty_tag("python"))


@pytest.mark.parametrize("post", ["\ud83d\ude00\u200d\U000e0001 é", "\udcff"])
def test_predict_writes_any_character_as_json_allows_it(tagger, post):
    status, out, _ = tagger("predict", post)
    assert status == 0
    assert_escaped(out)
    assert json.loads(out)["post"].encode("utf-16", "surrogatepass") == post.encode("utf-16", "surrogatepass")


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["show", "a"], ()),
        (["show", "a", "--json"], VISIBLE),
        (["runs"], ()),
        (["runs", "--json"], VISIBLE),
        (["models"], ()),
        (["models", "--json"], ()),
        (["models", "--log"], ()),
        (["models", "--log", "--json"], ()),
    ],
)
def test_show_runs_and_models_are_escaped(tagger, arguments, seen):
    status, out, err = tagger(*arguments)
    assert status == 0
    assert_escaped(out, *seen)
    assert_escaped(err)


def test_a_promotions_reason_is_escaped(tagger, run):
    version = Registry(run.store).live()
    assert tagger("promote", str(version), "--reason", f"{NASTY}\nforged line")[0] == 0
    status, out, _ = tagger("models", "--log")
    assert status == 0
    assert_escaped(out, *VISIBLE, r"\x1b[31m", r"\x1b]0;title\x07", r"\nforged")


def test_show_escapes_reasons_and_warnings(tagger, run, monkeypatch):
    manifests = Run.manifests

    def refused(self: Run) -> dict:
        found = manifests(self)
        found["evaluate"].summary["reasons"] = found["evaluate"].summary["warnings"] = [f"{NASTY}\nforged line"]
        return found

    monkeypatch.setattr(Run, "manifests", refused)
    _, out, _ = tagger("show", "a")
    lines = [line for line in out.splitlines() if line.startswith(("because", "warning:"))]
    assert len([line for line in lines if line.endswith(r"\nforged line")]) == 2
    assert_escaped(out, *VISIBLE, r"\x1b[31m", r"\nforged")


def test_evaluation_json_holds_the_tags_as_data(run):
    path = Path(run.store.path(run.manifest("evaluate").path), "evaluation.json")
    assert not re.search("[\x00-\x09\x0b-\x1f]", path.read_text())
    assert set(json.loads(path.read_text())["per_tag"]) == {nasty_tag("python"), nasty_tag("java")}


@pytest.fixture
def refused_sources(tmp_path: Path) -> dict[str, Path]:
    contents = {
        "column": f"post,{NASTY.replace(',', ' ')}\nhow,c#\n",
        "one tag": f'post,tags\nhow,"{NASTY}"\nwhy,"{NASTY}"\n',
        "quote": f'post,tags\nhow,"{NASTY}\n',
    }
    for number, content in enumerate(contents.values()):
        (tmp_path / f"{number}.csv").write_text(content)
    return {name: tmp_path / f"{number}.csv" for number, name in enumerate(contents)}


@pytest.mark.parametrize("name", ["column", "one tag", "quote"])
def test_an_error_is_one_escaped_line(name, refused_sources, tmp_path, tagger):
    """Both as the stage raises it, which Airflow logs, and on the command line."""
    run = Run(Store(str(tmp_path / "store")), "b")
    run.begin(Settings(source=str(refused_sources[name])), CREATED)
    with pytest.raises(BadInput) as caught:
        run_stage("ingest", run)
    assert str(caught.value).isprintable()
    status, _, err = tagger(
        "run", "--run", f"escape_control-{name.replace(' ', '-')}", "--source", str(refused_sources[name])
    )
    assert status == 2
    assert_escaped(err)
    assert f"tagger: {caught.value}" in err.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", NASTY],
        ["run", "--source", f"{NASTY}\n.csv"],
        ["run", "--source", f"/nowhere/{NASTY}\n.csv"],
        ["run", "--source", f"https://{NASTY}/"],
        ["run", "--set", f"epochs={NASTY}"],
        ["run", "--set", f"{NASTY}=1"],
        ["run", "--set", NASTY],
        ["run", "--from", NASTY],
        ["predict", "--input", f"/nowhere/{NASTY}", "--output", "x.parquet"],
        ["models", "--at", NASTY],
        ["models", "--debug", "--at", NASTY],
    ],
)
def test_usage_errors_are_escaped(tagger, arguments):
    status, out, err = tagger(*arguments)
    assert status == 2
    assert_escaped(out + err)
    assert err.splitlines()[-1].startswith("tagger: ")


def test_an_error_that_quotes_control_characters_is_one_line(tagger, monkeypatch):
    def fail(*_: object) -> None:
        raise TaggerError(f"{NASTY}\nforged")

    monkeypatch.setattr(Registry, "cards", fail)
    status, _, err = tagger("models")
    assert status == 1
    assert err.count("\n") == 1
    assert_escaped(err, *VISIBLE, r"\x1b[31m", r"\nforged")


def test_log_lines_are_escaped():
    code = (
        "import sys, logging\n"
        "from pipeline.cli.app import _shared\n"
        "_shared(False)\n"
        "logging.getLogger('x').warning('%s', sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, NASTY], capture_output=True, text=True, check=True)
    assert_escaped(done.stderr, *VISIBLE, r"\x1b[31m")
