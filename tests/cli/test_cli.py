import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline import cli
from pipeline.registry.registry import Registry
from pipeline.report.runs import SHOWN
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment, Settings, Tuning, read
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY, files_of, write_csv


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


def test_a_run_says_what_became_of_every_row_and_warns_also_if_the_stage_is_cached(tagger, tmp_path, caplog):
    folder, store = tmp_path / "posts", tmp_path / "store"
    folder.mkdir()
    rows = [("", "java"), ("so", "java|python"), ("why", ""), (TINY[0][0], "java"), *TINY, ("x", "c#"), ("y", "rust")]
    write_csv(folder / "posts.csv", rows)
    (folder / "more.tsv").touch()
    given = ("train_fraction=0.95", "drop_duplicates=true", "max_rejected_fraction=1", "vocabulary_size=4")
    options = [part for setting in given for part in ("--set", setting)]
    account = "of 14 rows 10 were kept, 3 rejected (1 empty post, 1 several tags, 1 empty tag), 1 dropped as copies"
    unread = f"warning: 1 file of {folder} is not read, because of a folder only those that end in"
    for name in ("a", "b"):
        command = ("run", "--source", folder, "--store", store, "--run", name, "--until", "fit_vocabulary")
        with caplog.at_level("INFO", "pipeline.run.runner"):
            status, _, err = tagger(*command, *options)
        assert status == 2
        assert [message.startswith(f"ingest of run {name}: {account}") for message in caplog.messages].count(True) == 1
        lines = err.splitlines()
        at = next(at for at, line in enumerate(lines) if line.startswith("  ingest "))
        assert account in lines[at + 1]
        assert ("cached" in lines[at]) is (name == "b")
        assert [message.startswith(unread) for message in caplog.messages].count(True) == 1
        caplog.clear()
    assert account in tagger("show", "b", "--store", store)[1]


def test_posts_whose_tag_no_train_post_has_are_said_to_be_left_out(tagger, tmp_path, caplog):
    source = write_csv(tmp_path / "posts.csv", [*TINY, ("ruby gem", "ruby"), ("java", "java"), ("more", "python")])
    given = ("train_fraction=0.75", "max_rejected_fraction=1", "vocabulary_size=4")
    options = [part for setting in given for part in ("--set", setting)]
    command = ("run", "--source", source, "--store", tmp_path / "store", "--until", "vectorize")
    warning = "warning: 1 of the 3 test posts (33.33%) have no tag that a train post has"
    for name in ("a", "b"):
        err = tagger(*command, "--run", name, *options)[2]
        assert [message.startswith(warning) for message in caplog.messages].count(True) == 1
        caplog.clear()
        assert err.count("of 11 rows 10 were kept, 1 rejected (1 tag that no train post has)") == 1
    assert "of 11 rows 10 were kept" in tagger("show", "b", "--store", tmp_path / "store")[1]


def test_a_run_is_continued_from_a_stage(tagger, source, tmp_path):
    store = tmp_path / "store"
    status, out, _ = tagger(
        "run", "--source", source, "--store", store, "--run", "a", *QUICK, "--until", "fit_vocabulary"
    )
    assert (status, "--from" in out) == (0, True)
    assert list(Run(Store(str(store)), "a").manifests()) == ["ingest", "fit_vocabulary"]
    status, *_ = tagger("run", "--store", store, "--run", "a", "--from", "vectorize", "--until", "vectorize")
    assert status == 0
    assert list(Run(Store(str(store)), "a").manifests()) == ["ingest", "fit_vocabulary", "vectorize"]


def test_a_relative_source_is_stored_as_an_absolute_path(tagger, source, tmp_path, monkeypatch):
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
        (("run", "--from", "train", "--run", "a", "--set", "epochs=3"), 2, "keeps the settings it was started with"),
        (("run", "--run", ".."), 2, "'..' cannot name a run"),
        (("show", "none"), 2, "holds no run 'none'"),
        (("predict", "x"), 2, "does not hold a live version: run `tagger run`"),
        (("predict",), 2, "give either texts, or both --input FILE and --output FILE"),
        (("predict", "--input", "x.csv"), 2, "give either texts, or both --input FILE and --output FILE"),
        (
            ("run", "--run", "a+b"),
            2,
            "holds no run 'a+b': `tagger runs` lists its runs; the name of a new one may have only",
        ),
        (("show", "manual__2026-01-05T06:07:08+00:00"), 2, "holds no run 'manual__2026-01-05T06:07:08+00:00'"),
        (("verify", "manual__2026-01-05T06:07:08+00:00"), 2, "there is no store at"),
        (("nothing",), 2, "no such command 'nothing': see `tagger --help`"),
        (("shwo",), 2, "no such command 'shwo': did you mean 'show'?"),
        (("--bogus",), 2, "no such option: --bogus: see `tagger --help`"),
        (("runs", "--jsn"), 2, "no such option: --jsn: did you mean --json?"),
        (("promote", "--reason", "x"), 2, "missing argument 'VERSION': see `tagger promote --help`"),
        (("promote", "5"), 2, "missing option '--reason': see `tagger promote --help`"),
        (("promote", "new", "--reason", "x"), 2, "invalid value for 'VERSION': input should be a valid integer"),
        (("gc", "all"), 2, "got unexpected extra argument(s) (all): see `tagger gc --help`"),
        (("run", "--set"), 2, "option '--set' requires an argument"),
    ],
)
def test_every_error_is_one_sentence_and_a_status(tagger, tmp_path, monkeypatch, arguments, status, sentence):
    monkeypatch.setenv("TAGGER_STORE", str(tmp_path / "store"))
    ended, out, err = tagger(*arguments)
    assert (ended, out) == (status, "")
    assert sentence in err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("tagger: ")
    assert arguments[0] == "run" or err.count("\n") == 1


@pytest.mark.parametrize("command", ["verify", "runs", "models", "gc"])
@pytest.mark.parametrize("kind", ["folder", "bucket", "prefix"])
def test_a_store_that_is_not_there_is_bad_input(tagger, tmp_path, request, command, kind):
    if kind != "folder":
        request.getfixturevalue("s3")
    url = {"folder": tmp_path / "none", "bucket": "s3://no-such-bucket/store", "prefix": "s3://stores/none"}[kind]
    status, out, err = tagger(command, "--store", url)
    said = f"the store {url} is in a bucket that is not there" if kind == "bucket" else f"there is no store at {url}"
    assert (status, out) == (2, "")
    assert err.startswith(f"tagger: {said}: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_run_in_a_bucket_that_is_not_there_is_bad_input(tagger, source, s3):
    status, _, err = tagger("run", "--source", source, "--store", "s3://no-such-bucket/store")
    assert status == 2
    assert "the store s3://no-such-bucket/store is in a bucket that is not there: create the bucket" in err


def test_an_unexpected_error_is_status_1_and_shows_a_traceback_only_with_debug(tagger, monkeypatch, tmp_path):
    def broken(*_):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(cli.models, "Registry", broken)
    monkeypatch.setenv("TAGGER_STORE", str(tmp_path))
    status, _, err = tagger("models")
    assert status == 1
    assert err == "tagger: unexpected error: ZeroDivisionError: by nothing (run it again with --debug to see where)\n"
    status, _, err = tagger("models", "--debug")
    assert status == 1
    assert "Traceback" in err


def test_runs_and_models_are_listed(tagger, finished_run):
    store = finished_run.store.url
    _, out, _ = tagger("runs", "--store", store)
    shown = out.splitlines()[1].split()
    assert shown[:3] + shown[4:6] == ["finished", "2026-01-05", "06:07", "6/6", "passed"]
    assert shown[3] == f"{sum(each.seconds for each in finished_run.manifests().values()):.1f}s"
    assert shown[-3:] == ["hidden_units=64", "epochs=3", "learning_rate=0.01"]
    _, out, _ = tagger("models", "--store", store)
    assert out.splitlines()[1].split()[:2] == ["20260105060708", "live"]
    _, out, _ = tagger("models", "--store", store, "--json")
    assert json.loads(out)[0]["run"] == "finished"
    _, out, _ = tagger("runs", "--store", store, "--json")
    [listed] = json.loads(out)
    assert listed["version"] == 20260105060708
    assert listed == json.loads(tagger("show", "finished", "--store", store, "--json")[1])


def test_show_names_the_paths_of_what_it_speaks_of(tagger, finished_run):
    _, out, _ = tagger("show", "finished", "--store", finished_run.store.url)
    named = dict(line.split() for line in out.splitlines() if line.split()[0] in SHOWN or line.startswith("report"))
    assert set(named) == {*SHOWN, "report"}
    for path in named.values():
        assert Path(path).exists()


def test_a_run_that_a_stage_refused_says_which_and_why(tagger, source, tmp_path):
    arguments = ("--store", tmp_path / "store")
    status, _, err = tagger("run", "--run", "a", *arguments, "--source", source, "--set", "text_column=body")
    assert status == 2
    _, out, _ = tagger("runs", *arguments)
    assert "refused by ingest" in out
    assert f"because {err.splitlines()[-1].removeprefix('tagger: ')}" in out
    _, out, _ = tagger("show", "a", *arguments)
    assert out.splitlines()[0] == "run a: refused by ingest, nothing published"
    assert f"because {err.splitlines()[-1].removeprefix('tagger: ')}" in out.splitlines()


def test_an_experiment_publishes_nothing_and_the_same_run_without_the_option_takes_it_from_the_cache(
    tagger, source, tmp_path
):
    arguments = ("--store", tmp_path / "store", "--source", source, *QUICK, "--set", "min_accuracy=0")
    status, out, _ = tagger("run", "--run", "a", "--no-publish", *arguments)
    assert (status, out) == (0, "not published, because publish is false: what is live stays\n")
    registry = Registry(Store(str(tmp_path / "store")))
    assert (registry.events(), registry.cards()) == ([], [])
    status, out, err = tagger("run", "--run", "b", *arguments)
    assert (status, out.startswith("published  version ")) == (0, True)
    assert err.count("cached, from run a") == 6
    assert registry.live() is not None


@pytest.fixture
def two_versions(finished_run, tmp_path):
    """A store in which the finished run's model was published twice, under two versions."""
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    registry = Registry(Store(str(tmp_path / "store")))
    card = registry.card(20260105060708)
    newer = card.model_copy(update={"version": 20260112060708, "data": "2026-01-12T06:07:08+00:00"})
    registry.publish(newer, compared_with=card.version)
    return registry


def test_rollback_and_promote_change_the_live_version_and_log_the_reason(tagger, two_versions):
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


def test_models_at_a_time_shows_the_version_live_then(tagger, two_versions):
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
    assert (status, "is not a time: write it as 2026-11-01T12:00Z" in err) == (2, True)


def test_a_run_that_cannot_be_read_is_named_and_the_others_listed(tagger, finished_run, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(finished_run.store.url, store)
    shutil.copytree(store / "runs" / "finished", store / "runs" / "broken")
    (store / "runs" / "broken" / "run.json").write_text("?")
    (store / "runs" / ".DS_Store").write_text("?")
    status, out, err = tagger("runs", "--store", store)
    assert (status, [line.split()[0] for line in out.splitlines()[1:]]) == (0, ["finished"])
    assert err.startswith("run broken is not listed: ")
    assert err.count("\n") == 1


def test_a_version_whose_files_are_gone_is_listed_as_collected(tagger, two_versions):
    two_versions.note_collected(two_versions.card(20260105060708).path, "old")
    _, out, _ = tagger("models", "--store", two_versions.store.url)
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["20260112060708", "live"],
        ["20260105060708", "collected"],
    ]


def test_a_long_name_is_not_wrapped(tagger, tmp_path):
    name = "manual__" + "2026-01-05T06_07_08_00_00" * 8
    Run(Store(str(tmp_path)), name).begin(Settings(), CREATED)
    _, out, _ = tagger("runs", "--store", tmp_path)
    assert [line.split() for line in out.splitlines()[1:]] == [[name, "2026-01-05", "06:07", "0.0s", "0/6"]]


def test_a_version_that_is_not_live_says_so(tagger, two_versions):
    status, out, _ = tagger("show", "finished", "--store", two_versions.store.url)
    assert status == 0
    assert "not live   version 20260112060708 is live: " in out


def test_show_says_from_which_step_a_retry_resumed(tagger, finished_run, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(finished_run.store.url, store)
    run = Run(Store(str(store)), "finished")
    manifest = run.manifest("train")
    run.adopt(manifest.model_copy(update={"summary": manifest.summary | {"resumed_from_step": 20}}))
    _, out, _ = tagger("show", "finished", "--store", store)
    assert [line.split()[0] for line in out.splitlines() if line.endswith("resumed from step 20")] == ["train"]


def test_a_report_is_saved_in_the_store_or_written_to_a_file(tagger, two_versions, tmp_path):
    store = two_versions.store.url
    status, out, _ = tagger("report", "finished", "--store", store)
    assert status == 0
    saved = Path(out.strip())
    assert saved.is_relative_to(Path(store, "runs", "finished", "report"))
    status, out, _ = tagger("report", "finished", "--store", store, "--output", tmp_path / "page.html")
    assert (status, out) == (0, f"{tmp_path / 'page.html'}\n")
    assert (tmp_path / "page.html").read_text() == saved.read_text()
    status, _, err = tagger("report", "--store", store, "--output", tmp_path / "no" / "page.html")
    assert (status, err.startswith("tagger: --output ")) == (2, True)
    status, _, err = tagger("report", "missing", "--store", store)
    assert (status, "holds no run 'missing'" in err) == (2, True)


def test_verify_names_changed_files(tagger, two_versions):
    store = two_versions.store.url
    status, out, _ = tagger("verify", "--store", store)
    assert (status, out.endswith("files and documents are unchanged since they were written\n")) == (0, True)
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
    assert listed.startswith(
        "would remove models/stackoverflow_tagger/20260105060708 (a version that is old, and neither live"
    )
    assert Path(store, "models/stackoverflow_tagger/20260105060708").exists()
    _, removed, _ = tagger("gc", "--store", store)
    assert removed == listed.replace("would remove", "removed")
    assert not Path(store, "models/stackoverflow_tagger/20260105060708").exists()
    assert tagger("verify", "--store", store)[0] == 0
    assert tagger("gc", "--store", store)[1].startswith("0 folders, 0 bytes")


def test_predict_gives_a_file_the_same_tags_as_its_texts(tagger, finished_run, tmp_path):
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
    assert "1 rows rejected" in err
    tagged = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["row"] for row in tagged[:3]] == [1, 3, 4]
    _, out, _ = tagger("predict", "--store", finished_run.store.url, texts[0], texts[2])
    for line, row in zip(out.splitlines(), tagged, strict=False):
        answer = json.loads(line)
        assert (answer["post"], answer["tag"]) == (row["post"], row["tag"])
        assert answer["probability"] == pytest.approx(row["probability"], abs=1e-5)


def test_a_damaged_live_model_does_not_answer(tagger, two_versions):
    store, live = two_versions.store.url, two_versions.live()
    weights = Path(store, "models", "stackoverflow_tagger", str(live), "variables", "variables.index")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, out, err = tagger("predict", "--store", store, "a python dict")
    assert (status, out) == (1, "")
    assert (
        f"version {live} is damaged where it is served: {weights} has other bytes than were written; `tagger pro" in err
    )
    tagger("promote", live, "--store", store, "--reason", "it was damaged")
    status, out, _ = tagger("predict", "--store", store, "a python dict")
    assert (status, len(out.splitlines())) == (0, 1)


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
    listed = re.findall(r"^│ (\w+) ", done.stdout.partition("Commands")[2], re.MULTILINE)
    first, second = (
        ["run", "show", "report", "runs", "compare", "settings", "tune"],
        ["predict", "serve", "watch", "upload", "models", "promote", "approve", "rollback"],
    )
    assert listed == [*first, "tunings", *second, "verify", "sign", "forget", "gc"]


def test_without_a_command_the_help_is_printed_and_nothing_else(tagger):
    status, out, err = tagger()
    assert (status, err) == (2, "")
    assert "Usage: tagger" in out


@pytest.mark.parametrize("given", ["manual__2026-01-05T06:07:08+00:00", "manual__2026-01-05T06_07_08_00_00"])
def test_a_run_is_named_as_airflow_does_or_as_the_store_does(tagger, source, tmp_path, given):
    store, stored = Store(str(tmp_path / "store")), "manual__2026-01-05T06_07_08_00_00"
    run = Run(store, stored)
    run.begin(Settings.of({"source": str(source)}), CREATED, "manual__2026-01-05T06:07:08+00:00")
    run_stage("ingest", run)
    status, out, _ = tagger("show", given, "--store", store.url)
    assert (status, out.splitlines()[0].startswith(f"run {stored}: not evaluated yet")) == (0, True)
    assert tagger("verify", given, "--store", store.url)[0] == 0
    again = ("run", "--run", given, "--from", "ingest", "--until", "ingest", "--source", source, "--store", store.url)
    status, _, err = tagger(*again)
    assert (status, err.splitlines()[0]) == (0, f"run {stored}")
    options = ("--from", "fit_vocabulary", "--until", "fit_vocabulary", "--store", store.url)
    assert tagger("run", "--run", given, *options)[0] == 0
    assert list(run.manifests()) == ["ingest", "fit_vocabulary"]


def test_an_id_that_differs_only_in_replaced_characters_is_another_run(tagger, tmp_path):
    run = Run(Store(str(tmp_path / "store")), "a_b")
    run.begin(Settings(), CREATED, "a:b")
    assert tagger("show", "a:b", "--store", run.store.url)[0] == 0
    status, _, err = tagger("show", "a+b", "--store", run.store.url)
    assert (status, "holds no run 'a+b'" in err) == (2, True)


def test_a_warning_is_printed_once(tagger, source, tmp_path, caplog):
    options = ("--source", source, "--store", tmp_path / "store", *QUICK, "--set", "min_accuracy=0")
    assert tagger("run", "--run", "a", *options, "--set", "epochs=60")[0] == 0
    told = [message for message in caplog.messages if "no model was live to compare with" in message]
    assert told == ["warning: no model was live to compare with: this is the first"]
    _, out, _ = tagger("show", "a", "--store", tmp_path / "store")
    assert out.splitlines()[0].startswith("run a: passed with 1 warning, accuracy ")
    assert "warning: no model was live to compare with: this is the first" in out.splitlines()
    _, out, _ = tagger("models", "--store", tmp_path / "store")
    assert "warnings" in out.splitlines()[0]


def test_settings_are_listed_with_their_values_and_where_these_come_from(tagger, monkeypatch):
    monkeypatch.setenv("TAGGER_EPOCHS", "7")
    status, out, _ = tagger("settings", "--json")
    listed = {setting.pop("name"): setting for setting in json.loads(out)}
    assert (status, list(listed)) == (0, [*Settings.model_fields, *Deployment.model_fields, *Tuning.model_fields])
    assert listed["epochs"] == {
        "section": "Training",
        "accepts": "whole number, 1 to 1,000",
        "default": 2,
        "value": 7,
        "from": "TAGGER_EPOCHS",
        "meaning": Settings.model_fields["epochs"].description,
    }
    assert {
        name: listed[name]["accepts"] for name in ("dropout", "min_accuracy", "split", "reuse", "force_reason")
    } == {
        "dropout": "number, at least 0 and below 1",
        "min_accuracy": "number, 0 to 1, or none",
        "split": "sequential or hash",
        "reuse": "true or false",
        "force_reason": "text, or none",
    }
    assert {setting["from"] for name, setting in listed.items() if name != "epochs"} == {"default"}
    status, out, _ = tagger("settings")
    assert "  epochs = 7  (whole number, 1 to 1,000; from TAGGER_EPOCHS; default 2)" in out.splitlines()
    assert "  reuse = true  (true or false; the default)" in out.splitlines()
    assert max(map(len, out.splitlines())) <= 130
    assert not [line for line in out.splitlines() if line != line.rstrip()]


def test_every_listed_value_can_be_set(tagger):
    for setting in json.loads(tagger("settings", "--json")[1]):
        value = setting["value"]
        read({}, **{setting["name"]: value if isinstance(value, str) else json.dumps(value)})


def test_a_bar_without_a_known_total_counts(monkeypatch):
    bars = sys.modules["pipeline.cli.app"]  # the package has an object of that name
    drawn = io.StringIO()
    monkeypatch.setattr(bars, "err", Console(file=drawn, force_terminal=True, width=80))
    for total, seen in ((None, "7"), (9, "7/9")):
        with bars._bars("verify", "files", total) as advance:
            advance(7)
        assert f" {seen} files" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.getvalue())
    assert "?" not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.getvalue())


def test_a_run_that_changes_nothing_says_so(tagger, finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    settings = finished_run.existing().settings
    options = ("--store", tmp_path / "store", "--run", "again")
    changed = [f"{name}={value}" for name, value in settings if value != getattr(Settings(), name)]
    status, out, err = tagger("run", *options, *(part for pair in changed for part in ("--set", pair)))
    version = finished_run.existing().first_version
    assert status == 0
    assert out.startswith(f"unchanged  version {version}, which run finished published, accuracy ")
    assert err.count("cached, from run finished") == 6
    _, out, _ = tagger("show", "again", "--store", tmp_path / "store")
    assert f"unchanged  version {version}, which run finished published, accuracy " in out
    assert f"cached     from run finished: {', '.join(STAGES)}" in out.splitlines()


def test_runs_lists_the_newest_and_says_that_there_are_more(tagger, tmp_path):
    for day in (1, 2, 3):
        Run(Store(str(tmp_path / "store")), f"of_day_{day}").begin(Settings(), CREATED.replace(day=day))
    status, out, err = tagger("runs", "--store", str(tmp_path / "store"), "--limit", "2")
    assert [day for day in (1, 2, 3) if f"of_day_{day}" in out] == [2, 3]
    assert "only the newest 2 runs are listed: add --all, or a higher --limit" in err
    for options in (["--all"], ["--limit", "3"]):
        status, out, err = tagger("runs", "--store", str(tmp_path / "store"), *options)
        assert (status, err) == (0, "")
        assert [day for day in (1, 2, 3) if f"of_day_{day}" in out] == [1, 2, 3]
