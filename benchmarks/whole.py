"""A whole `tagger run`, the parse of the DAG file and the tagging of a file, each in processes of their own."""

import json
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.process import Spent, spent
from benchmarks.table import Row

HALF = "train_fraction=0.5"
"""As the posts' publisher split them, and as the peers do."""

BESIDE_NOTEBOOK, PARSE, TAGGED = 1.5, 0.3, 20_000
"""At most so many times the notebook's CPU seconds; so many seconds; at least so many posts a second."""

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


def whole_rows(source: str) -> list[Row]:
    """A run from the posts to a published model beside the two scripts that people would write; then what it made."""
    with TemporaryDirectory(prefix="tagger-bench-") as store:
        notebook, linear = (_python(f"benchmarks.{peer}", source) for peer in ("notebook", "linear"))
        ours = spent([TAGGER, "run", "--store", store, "--source", source, "--set", HALF, "--set", "reuse=false"])
        [version] = Path(store, "models", "stackoverflow_tagger").iterdir()
        shown = json.loads(spent([TAGGER, "show", "--store", store, "--json"]).printed)
        pace = float(_python("benchmarks.asking", str(version), source).printed)
        one = spent([TAGGER, "predict", "--store", store, "how do i center a div"])
    script, svm, run = "the article's notebook", "TF-IDF + LinearSVC", "tagger run"
    accuracy = shown["accuracy"]
    return [
        Row(run, "CPU s", ours.cpu, script, notebook.cpu, BESIDE_NOTEBOOK, least=True),
        Row(run, "CPU s", ours.cpu, svm, linear.cpu, least=True),
        Row(run, "MiB at most", ours.peak_mib, script, notebook.peak_mib, least=True),
        Row(run, "MiB at most", ours.peak_mib, svm, linear.peak_mib, least=True),
        Row(run, "accuracy", accuracy, script, json.loads(notebook.printed)["accuracy"]),
        Row(run, "accuracy", accuracy, svm, json.loads(linear.printed)["accuracy"]),
        Row("tagger predict --input", "posts/s", pace, reach=TAGGED),
        Row("tagger predict TEXT, model load included", "CPU s", one.cpu, least=True),
    ]


def _python(module: str, *arguments: str) -> Spent:
    return spent([sys.executable, "-m", module, *arguments])


def parse_rows() -> list[Row]:
    """Reading the DAG file in a fresh process, beyond `import airflow.sdk`; the median of several."""
    read = [spent([sys.executable, "-c", READ, str(DAGS)]).printed.split() for _ in range(PARSES)]
    clock, cpu = (median(map(float, figures)) for figures in zip(*read, strict=True))
    return [
        Row("parse of the DAG file", "s", clock, reach=PARSE, least=True),
        Row("parse of the DAG file", "CPU s", cpu, least=True),
    ]
