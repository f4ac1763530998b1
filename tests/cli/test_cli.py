import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.registry.registry import Registry
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import TINY, files_of, write_csv


@pytest.fixture
def tagger(monkeypatch, capsys):
    """Call the command line in this process: exit status, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tagger", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def source(tmp_path):
    return write_csv(tmp_path / "posts.csv", TINY)


QUICK = (
    "--set",
    "train_fraction=0.75",
    "--set",
    "vocabulary_size=20",
    "--set",
    "hidden_units=8",
    "--set",
    "batch_size=2",
)


def test_a_run_from_posts_to_model(tagger, source, tmp_path):
    store = tmp_path / "store"
    options = ("--source", source, "--store", store, *QUICK, "--set", "epochs=60", "--set", "min_accuracy=0.5")
    status, out, err = tagger("run", "--run", "a", *options)
    assert (status, err.splitlines()[0]) == (0, "run a")
    version = Registry(Store(str(store))).live()
    assert f"published  version {version}, accuracy" in out
    assert str(store / "models" / "stackoverflow_tagger" / str(version)) in out

    status, out, _ = tagger("show", "a", "--store", store, "--json")
    report = json.loads(out)
    assert (report["verdict"], report["version"], list(report["stages"])[-1]) == ("passed", version, "export")
    assert all(stage["bytes"] > 0 and stage["seconds"] >= 0 for stage in report["stages"].values())
    assert report["stages"]["ingest"]["rows"] == 8

    status, out, _ = tagger("predict", "--store", store, "a python dict", "java class")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [(answer["post"], answer["tag"]) for answer in answers] == [
        ("a python dict", "python"),
        ("java class", "java"),
    ]
    assert all(0.5 < answer["probability"] <= 1 for answer in answers)


def test_a_run_goes_on_where_it_was_left(tagger, source, tmp_path):
    store = tmp_path / "store"
    status, out, _ = tagger(
        "run", "--source", source, "--store", store, "--run", "a", *QUICK, "--until", "fit_vocabulary"
    )
    assert (status, "--from" in out) == (0, True)
    assert list(Run(Store(str(store)), "a").manifests()) == ["ingest", "fit_vocabulary"]
    status, *_ = tagger("run", "--store", store, "--run", "a", "--from", "vectorize", "--until", "vectorize")
    assert status == 0
    assert list(Run(Store(str(store)), "a").manifests()) == ["ingest", "fit_vocabulary", "vectorize"]


def test_a_relative_source_is_kept_as_a_whole_path(tagger, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tagger("run", "--source", "posts.csv", "--store", "store", "--run", "a", "--until", "ingest")[0] == 0
    assert json.loads((tmp_path / "store/runs/a/run.json").read_text())["settings"]["source"] == str(source)


def test_a_gate_that_is_not_passed_is_status_3_and_publishes_nothing(tagger, source, tmp_path):
    options = (*QUICK, "--set", "epochs=1", "--set", "learning_rate=1e-9", "--set", "min_accuracy=1")
    status, _, err = tagger("run", "--source", source, "--store", tmp_path / "store", "--run", "a", *options)
    assert status == 3
    assert "below min_accuracy 1.0: nothing is published" in err.splitlines()[-1]
    assert not (tmp_path / "store" / "models").exists()
    _, out, _ = tagger("show", "a", "--store", tmp_path / "store")
    assert out.startswith("run a: failed, accuracy ")
    assert "nothing published" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("run", "--source", "/nowhere/posts.csv"), 2, "/nowhere/posts.csv"),
        (("run", "--set", "epochs"), 2, "has no '=': write --set name=value"),
        (("run", "--set", "epoch=2"), 2, "did you mean epochs?"),
        (("run", "--set", "epochs=0"), 2, "epochs='0': input should be greater than or equal to 1"),
        (("run", "--from", "trane"), 2, "no stage is named 'trane': the stages are ingest"),
        (("run", "--from", "train", "--until", "ingest"), 2, "--from train comes after --until ingest"),
        (("run", "--from", "train"), 2, "--from needs --run NAME"),
        (("run", "--from", "train", "--run", "none"), 2, "holds no run 'none'"),
        (("run", "--from", "train", "--run", "a", "--set", "epochs=3"), 2, "keeps the settings it began with"),
        (("run", "--run", "a/b"), 2, "'a/b' cannot name a run"),
        (("show", "none"), 2, "holds no run 'none'"),
        (("predict", "x"), 2, "does not hold a live version: run `tagger run`"),
        (("predict",), 2, "give either texts, or --input FILE and --output FILE"),
        (("predict", "--input", "x.csv"), 2, "give either texts, or --input FILE and --output FILE"),
        (("nothing",), 2, "No such command 'nothing'"),
    ],
)
def test_every_error_is_one_sentence_and_a_status(tagger, tmp_path, monkeypatch, arguments, status, sentence):
    monkeypatch.setenv("TAGGER_STORE", str(tmp_path / "store"))
    ended, out, err = tagger(*arguments)
    assert (ended, out) == (status, "")
    assert sentence in err
    assert "Traceback" not in err
    if sentence != "No such command 'nothing'":
        assert err.splitlines()[-1].startswith("tagger: ")


def test_what_nobody_foresaw_is_status_1_and_a_traceback_only_with_debug(tagger, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(cli.models, "Registry", broken)
    status, _, err = tagger("models")
    assert status == 1
    assert err == "tagger: unforeseen: ZeroDivisionError: by nothing (run again with --debug for where it happened)\n"
    status, _, err = tagger("models", "--debug")
    assert status == 1
    assert "Traceback" in err


def test_runs_and_models_are_listed(tagger, finished_run):
    store = finished_run.store.url
    _, out, _ = tagger("runs", "--store", store)
    assert out.splitlines()[1].split()[:3] == ["finished", "6/6", "passed"]
    _, out, _ = tagger("models", "--store", store)
    assert out.splitlines()[1].split()[:2] == ["20260105060708", "live"]
    _, out, _ = tagger("models", "--store", store, "--json")
    assert json.loads(out)[0]["run"] == "finished"
    _, out, _ = tagger("runs", "--store", store, "--json")
    assert json.loads(out)[0]["version"] == 20260105060708


@pytest.fixture
def two_versions(finished_run, tmp_path):
    """A store in which the finished run's model was published twice, under two versions."""
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    registry = Registry(Store(str(tmp_path / "store")))
    card = registry.card(20260105060708)
    newer = replace(card, version=20260112060708, data="2026-01-12T06:07:08+00:00")
    registry.publish(newer, beside=card.version)
    return registry


def test_a_hand_changes_what_is_live_and_says_why(tagger, two_versions):
    store = two_versions.store.url
    first, second = 20260105060708, 20260112060708
    assert tagger("rollback", "--store", store, "--reason", "too slow")[:2] == (0, f"version {first} is live again\n")
    assert tagger("promote", second, "--store", store, "--reason", "it was not")[:2] == (
        0,
        f"version {second} is live\n",
    )
    _, out, _ = tagger("models", "--log", "--store", store, "--json")
    assert [(event["action"], event["live"], event["reason"]) for event in json.loads(out)] == [
        ("publish", first, ""),
        ("publish", second, ""),
        ("rollback", first, "too slow"),
        ("promote", second, "it was not"),
    ]
    _, out, _ = tagger("models", "--log", "--store", store)
    assert "too slow" in out


def test_which_model_was_live_when(tagger, two_versions):
    store, (before, after) = two_versions.store.url, two_versions.events()
    for event in (before, after):
        status, out, _ = tagger("models", "--at", event.at, "--store", store)
        assert status == 0
        assert out.splitlines()[1].split()[:2] == [str(event.live), "live"]
        assert len(out.splitlines()) == 2
    status, _, err = tagger("models", "--at", "2020-01-01T12:00Z", "--store", store)
    assert (status, "no version was live at 2020-01-01T12:00Z" in err) == (2, True)
    shown = tagger("models", "--log", "--store", store)[1].splitlines()[-1].split()[0]
    _, out, _ = tagger("models", "--at", shown, "--store", store)
    assert out.splitlines()[1].split()[0] == str(after.live), "a second copied from the log is all of it"
    assert tagger("models", "--at", "", "--store", store)[0] == 2
    status, _, err = tagger("models", "--at", "monday", "--store", store)
    assert (status, "is no time: write it as 2026-11-01T12:00Z" in err) == (2, True)


def test_a_run_that_cannot_be_read_is_named_and_the_others_listed(tagger, finished_run, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(finished_run.store.url, store)
    shutil.copytree(store / "runs" / "finished", store / "runs" / "broken")
    (store / "runs" / "broken" / "run.json").write_text("?")
    (store / "runs" / ".DS_Store").write_text("?")
    status, out, err = tagger("runs", "--store", store)
    assert (status, [line.split()[0] for line in out.splitlines()[1:]]) == (0, ["finished"])
    assert err.startswith("run broken is left out: ")
    assert err.count("\n") == 1


def test_a_version_that_is_not_live_says_so(tagger, two_versions):
    status, out, _ = tagger("show", "finished", "--store", two_versions.store.url)
    assert status == 0
    assert "not live   version 20260112060708 is: " in out


def test_where_a_retry_went_on_is_told(tagger, finished_run, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(finished_run.store.url, store)
    run = Run(Store(str(store)), "finished")
    manifest = run.manifest("train")
    run.adopt(replace(manifest, summary=manifest.summary | {"resumed_from_step": 20}))
    _, out, _ = tagger("show", "finished", "--store", store)
    assert [line.split()[0] for line in out.splitlines() if line.endswith("went on from step 20")] == ["train"]


def test_verify_names_what_is_not_as_it_was(tagger, two_versions):
    store = two_versions.store.url
    status, out, _ = tagger("verify", "--store", store)
    assert (status, out.endswith("files and documents are as they were written\n")) == (0, True)
    (path,) = Path(store).glob("runs/*/train/*/model/checkpoint")
    path.write_text("?")
    status, out, err = tagger("verify", "finished", "--store", store)
    assert (status, out.startswith(f"{path} has other bytes than were written: run ")) == (1, True)
    assert "1 of " in err


def test_gc_lists_and_then_removes(tagger, two_versions, monkeypatch):
    monkeypatch.setenv("TAGGER_KEEP_DAYS", "0")
    monkeypatch.setenv("TAGGER_KEEP_VERSIONS", "0")
    store = two_versions.store.url
    _, listed, _ = tagger("gc", "--dry-run", "--store", store)
    assert listed.startswith("would remove models/stackoverflow_tagger/20260105060708 (a version that is not live")
    assert Path(store, "models/stackoverflow_tagger/20260105060708").exists()
    _, removed, _ = tagger("gc", "--store", store)
    assert removed == listed.replace("would remove", "removed")
    assert not Path(store, "models/stackoverflow_tagger/20260105060708").exists()
    assert tagger("verify", "--store", store)[0] == 0
    assert tagger("gc", "--store", store)[1].startswith("0 folders, 0 bytes")


def test_a_file_is_tagged_as_its_texts_are(tagger, finished_run, tmp_path):
    texts = [
        "how to center a div",
        "",
        "segfault in pointer arithmetic",
        *(f"post {n} about jquery" for n in range(1200)),
    ]
    source = write_csv(tmp_path / "in.csv", [(text, "unused") for text in texts], header=("body", "x"))
    options = ("--input", source, "--output", tmp_path / "out.parquet", "--text-column", "body")
    status, out, err = tagger("predict", "--store", finished_run.store.url, *options)
    assert (status, out) == (0, "")
    assert "1,202 posts tagged" in err
    assert "1 rows set aside" in err
    tagged = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["row"] for row in tagged[:3]] == [1, 3, 4]
    _, out, _ = tagger("predict", "--store", finished_run.store.url, texts[0], texts[2])
    for line, row in zip(out.splitlines(), tagged, strict=False):
        answer = json.loads(line)
        assert (answer["post"], answer["tag"]) == (row["post"], row["tag"])
        assert answer["probability"] == pytest.approx(row["probability"], abs=1e-5)


def test_a_file_that_cannot_be_tagged_leaves_no_output(tagger, finished_run, tmp_path):
    (tmp_path / "bad.csv").write_text('post\n"never closed\n')
    before = files_of(tmp_path)
    options = ("--input", tmp_path / "bad.csv", "--output", tmp_path / "out.parquet")
    status, _, err = tagger("predict", "--store", finished_run.store.url, *options)
    assert (status, "truncated or corrupt" in err) == (2, True)
    assert files_of(tmp_path) == before


def test_the_installed_command_answers():
    done = subprocess.run(
        [Path(sys.executable).with_name("tagger"), "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in ("run", "show", "runs", "models", "predict"))


def test_a_run_that_changes_nothing_says_so(tagger, finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    settings = finished_run.existing().settings
    options = ("--store", tmp_path / "store", "--run", "again")
    changed = [f"{name}={getattr(settings, name)}" for name in ("source", "epochs")]
    status, out, err = tagger("run", *options, *(part for pair in changed for part in ("--set", pair)))
    version = finished_run.existing().version
    assert status == 0
    assert out.startswith(f"unchanged  since run finished: version {version}, accuracy ")
    assert err.count("as in run finished") == 6
    _, out, _ = tagger("show", "again", "--store", tmp_path / "store")
    assert f", version {version}, which run finished published" in out.splitlines()[0]
    assert out.count("as in run finished") == 6
