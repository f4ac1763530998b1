"""The two models of docs/tutorial/first-model.md: the second wins, as the page says."""

import re
from pathlib import Path

import pytest

from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial" / "first-model.md").read_text()


def test_the_second_model_is_better_by_as_much_as_the_page_says(tmp_path):
    """The numbers depend a little on the processor, the winner does not."""
    sources = re.findall(r"sample://posts\?rows=\d+&seed=\d+", PAGE)
    first, second = sources[0], sources[-1]
    assert second == Settings().source
    store = Store(str(tmp_path / "store"))
    for name, source, day in (("first", first, 5), ("second", second, 6)):
        run = Run(store, name)
        run.begin(Settings.of({"source": source}), CREATED.replace(day=day))
        for stage in STAGES:
            run_stage(stage, run)

    accuracy = [Run(store, name).manifest("evaluate").summary["accuracy"] for name in ("first", "second")]
    decided = run.manifest("evaluate").summary
    compared = [decided["champion_accuracy"], decided["accuracy"]]
    assert decided["verdict"] == "passed"
    assert compared[1] - compared[0] > 0.05

    [said] = re.findall(r"got (0\.\d+) of them right, the second\s+(0\.\d+)", PAGE)
    assert list(map(float, said)) == pytest.approx(compared, abs=0.01)
    listed = re.findall(r"^    \d{14} .*?(0\.\d+)", PAGE, flags=re.M)
    assert list(map(float, listed)) == pytest.approx(accuracy[::-1], abs=0.01)
