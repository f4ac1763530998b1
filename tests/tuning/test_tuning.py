"""A tuning: its trials, its winner, and what interrupts it."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.data import posts
from pipeline.errors import BadInput, TrainingFailed, Unavailable
from pipeline.settings import Deployment, Settings, Tuning, read_all
from pipeline.settings.tuning import SEARCHABLE
from pipeline.store.hold import held
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.tuning.journal import Journal
from pipeline.tuning.tuning import PRESENT, PREVIOUS, TuningRun, asked_of
from pipeline.tuning.winner import latest, result_of, with_tuned
from tests.conftest import CREATED

SPACE = {"hidden_units": [8, 16], "vector_mode": ["binary", "log_tfidf"], "learning_rate": {"low": 0.01, "high": 0.05}}
TAGGER = Path(sys.executable).with_name("tagger")
SOURCE = "sample://posts?rows=1200&seed=4"
VALUES = {"source": SOURCE, "vocabulary_size": 200, "hidden_units": 8, "epochs": 2}


def begun(store, name="t", **values):
    """A tuning of few small trials, and what it was begun with."""
    options = {name: values.pop(name) for name in list(values) if name in Tuning.model_fields}
    tuning = TuningRun(store, name)
    options = Tuning.of({"search_space": SPACE, "trials": 3, "max_epochs": 3} | options)
    asked = asked_of(name, Settings.of(VALUES | values), options, Deployment(), CREATED)
    return tuning, tuning.begin(asked)


def done(tuning, asked):
    for number in range(len(asked.references) + asked.options.trials):
        tuning.do_trial(asked, number)
    return tuning.finish(asked)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(str(tmp_path_factory.mktemp("tuning") / "store"))


@pytest.fixture(scope="module")
def result(store):
    return done(*begun(store))


def test_the_winner_is_the_trial_with_the_highest_accuracy(result):
    scored = [trial for trial in result.trials if trial.state == "scored"]
    assert result.best.accuracy == max(trial.accuracy for trial in scored)
    assert [trial.origin for trial in result.trials] == [PRESENT, "search", "search", "search"]
    for trial in scored:
        assert trial.accuracy == trial.curve[trial.best_epoch - 1]["accuracy"]
    for trial in result.trials[1:]:
        assert trial.settings.keys() == {*SEARCHABLE, "optimizer"}
        assert trial.settings["optimizer"] == "lazy_adam"
        assert trial.settings["hidden_units"] in SPACE["hidden_units"]
        assert 0.01 <= trial.settings["learning_rate"] <= 0.05


def test_it_is_compared_with_the_present_settings_on_the_same_posts(result):
    against = result.against[PRESENT]
    assert against.trial == 0
    assert against.difference == pytest.approx(result.best.accuracy - result.trials[0].accuracy, abs=1e-6)
    assert against.gained - against.lost == round(against.difference * result.validation_posts)
    assert 0 < result.validation_posts < 400
    assert result.best.settings["vector_mode"] in result.sentence


def test_trials_share_what_they_have_in_common(result, store):
    runs = [Run(store.within("tunings/t/trials"), f"trial{trial.number}") for trial in result.trials]
    assert {run.manifest("ingest").run for run in runs if run.manifest("ingest")} == {"posts"}
    assert {run.manifest("fit_vocabulary").run for run in runs} == {"trial0"}


def test_nothing_is_published_and_no_test_post_is_stored(result, store):
    assert {name.partition("/")[0] for name in store.sizes("")} == {"tunings"}
    ingest = Run(store.within("tunings/t/trials"), "posts").manifest("ingest")
    folder = Path(store.path(f"tunings/t/trials/{ingest.path}"))
    assert posts.rows(folder, "posts/test") == 0
    assert posts.rows(folder, "posts/validation") == result.validation_posts


def test_other_test_posts_make_the_same_tuning(tmp_path):
    """The test posts are replaced by others: every trial, and the winner, stays the same."""
    from pipeline.sources import sample

    rows = [
        row
        for block in sample.blocks(600, seed=0)
        for row in zip(*block.select(["post", "tag"]).to_pydict().values(), strict=True)
    ]
    results = []
    for name, tested in (("one", rows[480:]), ("other", [("something else", tag) for _, tag in rows[480:]])):
        path = tmp_path / f"{name}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("post", "tags"), *rows[:480], *tested])
        store = Store(str(tmp_path / name))
        results.append(done(*begun(store, source=str(path), trials=2, fail_duplicates=1)))
    one, other = ([trial.model_dump(exclude={"seconds"}) for trial in result.trials] for result in results)
    assert one == other
    assert results[0].posts == results[1].posts


def test_the_same_seed_makes_the_same_tuning_and_another_one_another(result, tmp_path):
    again = done(*begun(Store(str(tmp_path / "again"))))
    other = done(*begun(Store(str(tmp_path / "other")), seed=7))
    mine, same, different = (
        [(trial.settings, trial.accuracy, trial.state) for trial in each.trials] for each in (result, again, other)
    )
    assert mine == same
    assert mine != different


def test_a_run_takes_the_winners_settings(result, store):
    settings = with_tuned(store, Settings.of(VALUES | {"tuned": "latest"}))
    assert settings.tuned == "t"
    assert settings.epochs == result.best.best_epoch
    assert (settings.temperature, settings.fit_temperature) == (result.best.temperature, False)
    assert result.best.temperature != 1
    assert {name: getattr(settings, name) for name in result.best.settings} == result.best.settings
    assert (settings.source, settings.drop_test_posts, settings.validation_fraction) == (SOURCE, False, 0)
    unchanged = Settings.of(VALUES)
    assert with_tuned(store, unchanged) == unchanged


@pytest.mark.parametrize(("tuned", "why"), [("latest", "no tuning is finished"), ("x", "tuning 'x' is not finished")])
def test_a_winner_that_does_not_exist_is_refused(tmp_path, tuned, why):
    with pytest.raises(BadInput, match=why):
        with_tuned(Store(str(tmp_path / "empty")), Settings(tuned=tuned))


def test_the_next_tuning_tries_the_last_winner_too(result, store):
    tuning, asked = begun(store, name="next", trials=1)
    assert asked.references[PREVIOUS] == result.winning_settings
    following = done(tuning, asked)
    assert [trial.origin for trial in following.trials] == [PRESENT, PREVIOUS, "search"]
    assert following.against[PREVIOUS].trial == 1
    assert latest(store).tuning == "next"
    assert latest(store, without="next").tuning == "t"


def test_a_trial_that_is_done_is_not_done_again(result, store):
    tuning, asked = TuningRun(store, "t"), TuningRun(store, "t").asked()
    before = store.names("tunings/t/journal")
    assert tuning.do_trial(asked, 2) == result.trials[2]
    assert store.names("tunings/t/journal") == before


def test_a_tuning_that_is_killed_goes_on_and_loses_no_trial(tmp_path):
    """Killed in its third trial; the trials before are kept, and the result is that of one that was not interrupted."""
    options = [f"search_space={str(SPACE).replace(chr(39), chr(34))}", "trials=3", "max_epochs=3"]
    pairs = [part for pair in [*(f"{k}={v}" for k, v in VALUES.items()), *options] for part in ("--set", pair)]
    command = [TAGGER, "tune", "k", "--store", tmp_path / "store", *pairs]
    store, path = Store(str(tmp_path / "store")), "tunings/k/done"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not Path(store.path("tunings/k/trials/runs/trial2/run.json")).exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = {name: Path(store.path(f"{path}/{name}")).read_bytes() for name in store.names(path)}
    assert set(kept) == {"0000.json", "0001.json"}
    subprocess.run(command, check=True, capture_output=True)
    assert {name: Path(store.path(f"{path}/{name}")).read_bytes() for name in kept} == kept
    whole = done(*begun(Store(str(tmp_path / "whole"))))
    again = result_of(store, "k")
    assert [trial.accuracy for trial in again.trials] == [trial.accuracy for trial in whole.trials]
    assert again.winner == whole.winner
    assert not held(store, "k")


def test_a_tuning_that_another_process_took_over_begins_no_further_trial(tmp_path, monkeypatch, capsys):
    """As after a night in which this machine slept."""
    trials, do_trial = [], TuningRun.do_trial

    def taken_over_meanwhile(tuning, asked, number, track):
        trials.append(number)
        tuning.store.write("tunings/t/held-1.json", {"host": "elsewhere", "process": 7, "at": time.time()})
        return do_trial(tuning, asked, number, track)

    monkeypatch.setattr(TuningRun, "do_trial", taken_over_meanwhile)
    pairs = [part for name, value in VALUES.items() for part in ("--set", f"{name}={value}")]
    monkeypatch.setattr("sys.argv", ["tagger", "tune", "t", "--store", str(tmp_path), *pairs])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert trials == [0]
    assert "tuning t was taken over by process 7 on elsewhere" in " ".join(capsys.readouterr().err.split())
    assert held(Store(str(tmp_path)), "t")


def test_other_settings_or_other_posts_are_refused(tmp_path):
    path = tmp_path / "posts.csv"
    rows = [(f"{word} {number}", word) for number in range(60) for word in ("java", "python", "css", "sql")]

    def write(posts):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("post", "tags"), *posts])

    write(rows)
    store = Store(str(tmp_path / "store"))
    begun(store, source=str(path))
    begun(store, source=str(path))
    with pytest.raises(BadInput, match="was begun with other settings"):
        begun(store, source=str(path), trials=4)
    write(rows[4:])
    with pytest.raises(BadInput, match="has other posts than when tuning t was begun"):
        begun(store, source=str(path))


def test_a_loss_that_is_no_number_fails_the_trial_and_not_the_tuning(tmp_path):
    tuning, asked = begun(
        Store(str(tmp_path / "store")), search_space={"learning_rate": [1e30]}, trials=1, epochs=1, max_epochs=1
    )
    assert tuning.do_trial(asked, 0).state == "scored"
    failed = tuning.do_trial(asked, 1)
    assert (failed.state, failed.accuracy) == ("failed", None)
    assert "network diverged" in failed.why or "loss" in failed.why
    assert tuning.finish(asked).winner == 0


def test_without_a_trial_there_is_no_winner(tmp_path):
    tuning, asked = begun(Store(str(tmp_path / "store")))
    with pytest.raises(TrainingFailed, match="no trial of tuning t succeeded"):
        tuning.finish(asked)


def test_no_trial_is_begun_when_the_budget_is_spent(tmp_path):
    tuning, asked = begun(Store(str(tmp_path / "store")), budget_minutes=1e-6)
    assert not tuning.spent(asked)
    tuning.do_trial(asked, 0)
    assert tuning.spent(asked)


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ("{}", "it must name settings to search"),
        ("[1", "it is not JSON"),
        ('{"epochs": [1]}', "epochs cannot be searched"),
        ('{"dropout": []}', "dropout needs a list of values, or a range"),
        ('{"dropout": [1.5]}', "dropout=1.5: input should be less than 1"),
        ('{"dropout": {"low": 0.5}}', 'dropout needs numbers "low" and "high"'),
        ('{"dropout": {"low": 0.5, "high": 0.5}}', "dropout: low must be below high"),
        ('{"learning_rate": {"low": 0, "high": 1}}', "learning_rate=0"),
    ],
)
def test_a_search_space_that_makes_no_sense_is_refused_in_one_sentence(space, why):
    with pytest.raises(BadInput, match=why) as refused:
        read_all({"TAGGER_SEARCH_SPACE": space})
    assert str(refused.value).endswith("correct the setting and start again")


@pytest.fixture(params=["local", "memory", "s3"])
def any_store(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
    return Store({"local": str(tmp_path), "memory": "memory://journal", "s3": "s3://stores/journal"}[request.param])


def test_every_process_reads_the_same_journal(any_store):
    one, other = Journal(any_store, "j"), Journal(any_store, "j")
    one.append_logs([{"a": 1}, {"a": 2}])
    other.append_logs([{"b": 1}])
    one.append_logs([{"a": 3}])
    assert list(one.read_logs(0)) == list(other.read_logs(0)) == [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 3}]
    assert list(other.read_logs(2)) == [{"b": 1}, {"a": 3}]


def test_a_full_disk_in_the_middle_loses_no_trial(tmp_path):
    """The trial that does not fit is one sentence; with room again it is done, and those before are as they were."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=64m tmpfs {folder} 2>/dev/null"):  # noqa: S605 - the folder is ours
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        tuning, asked = begun(Store(f"{folder}/store"), trials=2)
        first = tuning.do_trial(asked, 0)
        filler = folder / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(Unavailable, match=r"No space left on device\); trying again can help"):
            tuning.do_trial(asked, 1)
        filler.unlink()
        assert tuning.trials() == [first]
        result = done(tuning, asked)
        assert [trial.number for trial in result.trials] == [0, 1, 2]
        assert result.trials[0] == first
    finally:
        os.system(f"umount {folder}")  # noqa: S605 - the same
