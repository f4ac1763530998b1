"""Measure a whole `tagger run`, the parse of the DAG file, and the tagging of a file, each in its own process."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from benchmarks.process import Spent, spent
from benchmarks.table import NOTEBOOK, SAME, Row

HALF = "train_fraction=0.5"
"""The split of the posts' publisher, which the peers use too."""

NOTEBOOK_RATIO, PARSE, TAGGED = 1.5, 0.3, 20_000
"""The bounds: of the ratio to the notebook's CPU seconds, of the seconds of a parse, of posts tagged per second."""

ROUNDS = 2
PARSES = 5
TAGGER = str(Path(sys.executable).with_name("tagger"))
DAGS = Path(__file__).parents[1] / "dags"

READ = """
import sys, time
import airflow.sdk
sys.path.append(sys.argv[1])
start = time.perf_counter(), time.process_time()
import stackoverflow_tagger
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


@dataclass(frozen=True)
class Whole:
    """The results: all rounds of the two scripts and of our run; accuracy and speed of tagging of our last model."""

    notebook: list[Spent]
    linear: list[Spent]
    ours: list[Spent]
    accuracy: float
    file: Spent
    text: Spent

    @property
    def notebook_cpu(self) -> float:
        """CPU seconds of the notebook's best round."""
        return _cpu(self.notebook)


def whole(source: str, rounds: int = ROUNDS) -> Whole:
    """Run, in turn, the pipeline from posts to published model, and the two scripts that people would write instead."""
    done = list[tuple[Spent, Spent, Spent]]()
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        for number in range(rounds):
            store = f"{scratch}/{number}"
            run = [TAGGER, "run", "--store", store, "--source", source, "--set", HALF, "--set", "reuse=false"]
            done.append((_python("benchmarks.notebook", source), _python("benchmarks.linear", source), spent(run)))
        [version] = Path(store, "models", "stackoverflow_tagger").iterdir()
        shown = json.loads(spent([TAGGER, "show", "--store", store, "--json"]).printed)
        file = _python("benchmarks.asking", str(version), source)
        text = spent([TAGGER, "predict", "--store", store, "how do i center a div"])
    notebook, linear, ours = (list(each) for each in zip(*done, strict=True))
    return Whole(notebook, linear, ours, shown["accuracy"], file, text)


def whole_rows(measured: Whole) -> list[Row]:
    """Compare our run with the two scripts by best CPU time, largest memory and mean accuracy; then our tagging."""
    notebook, linear, ours = measured.notebook, measured.linear, measured.ours
    svm, run, accuracy = "TF-IDF + LinearSVC", "tagger run", measured.accuracy
    return [
        Row(run, "CPU s", _cpu(ours), NOTEBOOK, _cpu(notebook), NOTEBOOK_RATIO, least=True),
        Row(run, "CPU s", _cpu(ours), svm, _cpu(linear), least=True),
        Row(run, "MiB at most", _peak(ours), NOTEBOOK, _peak(notebook), least=True),
        Row(run, "MiB at most", _peak(ours), svm, _peak(linear), least=True),
        Row(run, "accuracy", accuracy, NOTEBOOK, _accuracy(notebook), SAME),
        Row(run, "accuracy", accuracy, svm, _accuracy(linear)),
        Row("tagger predict --input", "posts/s", float(measured.file.printed), reach=TAGGED),
        Row("tagger predict TEXT, model load included", "CPU s", measured.text.cpu, least=True),
    ]


def _python(module: str, *arguments: str) -> Spent:
    return spent([sys.executable, "-m", module, *arguments])


def _cpu(rounds: list[Spent]) -> float:
    return min(each.cpu for each in rounds)


def _peak(rounds: list[Spent]) -> float:
    return max(each.peak_mib for each in rounds)


def _accuracy(rounds: list[Spent]) -> float:
    return mean(float(json.loads(each.printed)["accuracy"]) for each in rounds)


def parse_rows(rounds: int = PARSES) -> list[Row]:
    """Measure the import of the DAG file in a new process, after `import airflow.sdk`; the median of several rounds."""
    read = [spent([sys.executable, "-c", READ, str(DAGS)]).printed.split() for _ in range(rounds)]
    clock, cpu = (median(map(float, figures)) for figures in zip(*read, strict=True))
    return [
        Row("parse of the DAG file", "s", clock, reach=PARSE, least=True),
        Row("parse of the DAG file", "CPU s", cpu, least=True),
    ]
