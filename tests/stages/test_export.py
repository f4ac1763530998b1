import json
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ruamel.yaml

from pipeline.checks import parity
from pipeline.data.weights import FILE, Weights
from pipeline.errors import ExportRefused
from pipeline.published import parity as published_parity
from pipeline.registry.registry import Registry
from pipeline.sources.source import Source
from pipeline.stages import export, model_card
from pipeline.stages.context import Context


@pytest.fixture
def process_as_in_production(monkeypatch):
    monkeypatch.setattr(export, "subprocess", subprocess)


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """The SavedModel of the finished run, and the cases of its parity check."""
    folder = tmp_path_factory.mktemp("exported")
    inputs = {}
    for name in ("ingest", "fit_vocabulary", "vectorize", "evaluate"):
        finished_run.files.fetch(finished_run.manifest(name), folder / name)
        inputs[name] = folder / name
    labels = export.read_lines(inputs["fit_vocabulary"] / "labels.txt")
    Registry(finished_run.store).fetch(None, folder / "model")
    return folder / "model", export._cases(inputs, labels)


def replace_column(cases, column, values):
    at = cases.schema.get_field_index(column)
    return cases.set_column(at, cases.schema.field(at), values)


def change_second(values, change):
    listed = values.to_pylist()
    listed[1] = change(listed[1])
    return pa.array(listed, values.type)


def test_the_parity_check_covers_every_test_post(finished_run, exported):
    summary = finished_run.manifest("export").summary
    assert summary["rows"] == exported[1].num_rows == 400
    assert summary["largest_difference"] <= 1e-5


@pytest.mark.usefixtures("process_as_in_production")
def test_progress_has_a_total_from_the_start(exported, finished_run, tmp_path):
    totals = []

    @contextmanager
    def display(task, unit, total):
        totals.append((task, unit, total))
        yield lambda count: None

    inputs = {name: exported[0].parent / name for name in ("ingest", "fit_vocabulary", "vectorize", "evaluate")}
    finished_run.files.fetch(finished_run.manifest("train"), tmp_path / "train")
    (tmp_path / "out").mkdir()
    settings = finished_run.existing().settings
    context = Context(Source.parse(settings.source), track=display)
    summary = export.run(inputs | {"train": tmp_path / "train"}, tmp_path / "out", settings, context)
    assert totals == [("export", "posts", summary.rows)]


@pytest.mark.parametrize(
    ("column", "change", "fault"),
    [
        ("probabilities", lambda values: [values[0] + 2e-5, *values[1:]], "a probability differs by 2.0e-05"),
        ("indices", lambda values: [*values[:-1], values[-1] + 1], "its vector is not the one that vectorize made"),
        ("tag", lambda tag: "cobol", "where the Estimator said 'cobol'"),
        ("post", lambda post: post + " javascript jquery iphone", "its vector is not the one"),
    ],
)
def test_any_difference_refuses_the_export(exported, tmp_path, column, change, fault):
    model, cases = exported
    cases = cases.slice(0, 20)
    row = cases.column("row")[1].as_py()
    pq.write_table(
        replace_column(cases, column, change_second(cases.column(column), change)), tmp_path / "cases.parquet"
    )
    with pytest.raises(ExportRefused) as caught:
        export.check_parity(model, tmp_path / "cases.parquet")
    assert f"row {row}: " in str(caught.value)
    assert fault in str(caught.value)


@pytest.mark.parametrize(("lead", "faults"), [(1e-5, []), (1e-3, ["row 7: tag 'java' where the Estimator said 'c'"])])
def test_a_tie_may_be_broken_either_way(lead, faults):
    """Two tags whose probabilities differ by less than the tolerance are a tie: either answer is right."""
    wanted = np.array([[0.5, 0.5 - lead, lead]], np.float32)
    case = {"row": 7, "post": "", "tag": "c", "indices": [1], "values": [1.0], "probabilities": wanted[0].tolist()}
    batch = pa.RecordBatch.from_pylist([case], schema=parity.CASES)
    same = np.array([True])
    said, ties = ["java"], parity.are_ties(wanted, None)
    assert list(parity.faults(batch, same, said, ties, np.zeros(1))) == faults


@pytest.mark.parametrize(("limit", "tie"), [(0.30001, True), (0.301, False)])
def test_a_tag_as_probable_as_its_threshold_is_a_tie(limit, tie):
    limits = np.array([0.5, limit, 0.5], np.float32)
    assert parity.are_ties(np.array([[0.9, 0.3, 0.1]], np.float32), limits).tolist() == [tie]


@pytest.mark.usefixtures("process_as_in_production")
def test_a_model_that_cannot_be_loaded_is_refused(exported, tmp_path):
    model, cases = exported
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "variables" / "variables.index").unlink()
    with pytest.raises(ExportRefused, match="cannot be loaded or used"):
        export.check_parity(tmp_path / "model", _written(cases, tmp_path))


def changed_weight(model):
    weights = Weights.read(model / FILE, columns=1000, tags=20)
    weights.labels_kernel[0, 0] += 0.01
    weights.write(model / FILE)


def changed_word(model):
    """As where two lines of a vocabulary changed places after the graph was made."""
    counts = pq.read_table(model / "assets.extra/counts.parquet")
    words = counts["word"].to_pylist()
    words[4:6] = words[5], words[4]
    changed = counts.set_column(0, "word", pa.array(words)).replace_schema_metadata(counts.schema.metadata)
    pq.write_table(changed, model / "assets.extra/counts.parquet")
    (model / "assets/vocabulary.txt").write_text("".join(f"{word}\n" for word in words))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            changed_weight,
            "the file of weights beside the exported model does not .*row 16..: a probability differs by",
        ),
        (changed_word, "the exported model does not answer as .*its vector is not the one that vectorize made"),
        (lambda model: (model / FILE).write_bytes(b""), r"cannot be loaded or used \(.*weights.safetensors cannot be"),
    ],
    ids=["weight", "word", "file"],
)
def test_an_export_whose_weights_or_words_were_changed_is_refused(exported, tmp_path, change, fault):
    model, cases = exported
    shutil.copytree(model, tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(ExportRefused, match=fault):
        export.check_parity(tmp_path / "model", _written(cases.slice(0, 50), tmp_path))


def test_the_published_model_is_asked_for_each_word(exported, tmp_path):
    """Where only its own list of words is another, which the SavedModel's check would not see."""
    model, cases = exported
    shutil.copytree(model, tmp_path / "model")
    changed_word(tmp_path / "model")
    faults = published_parity.check_parity(tmp_path / "model", _written(cases.slice(0, 50), tmp_path)).faults
    assert faults
    assert "a probability differs by" in faults[0]


def test_the_cases_join_posts_vectors_and_answers_by_row(exported):
    _, cases = exported
    assert cases.column("row").to_pylist() == list(range(1601, 2001))
    assert pc.all(pc.greater(pc.binary_length(cases.column("post")), 0)).as_py()


def _written(cases, folder):
    pq.write_table(cases, folder / "cases.parquet")
    return folder / "cases.parquet"


@pytest.fixture(scope="module")
def card(exported):
    """The model card's front matter and its text."""
    _, front, text = (exported[0] / "model-card.md").read_text().split("---\n", 2)
    return ruamel.yaml.YAML(typ="safe").load(front), text


def test_the_model_card_has_the_figures_in_front_matter_and_text(card, exported, finished_run):
    front, text = card
    evaluation = json.loads((exported[0].parent / "evaluate" / "evaluation.json").read_text())
    figures = finished_run.manifest("evaluate").summary
    [result] = front["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": figures["accuracy"],
        "f1": figures["macro_f1"],
    }
    assert front["pipeline_tag"] == result["task"]["type"] == "text-classification"
    assert f"| accuracy | {figures['accuracy']:.4f} |" in text
    assert "synthetic posts" in text
    for tag, each in evaluation["per_tag"].items():
        assert f"| {model_card._inert(tag)} | {each['precision']:.3f} | {each['recall']:.3f} |" in text


def test_the_model_cards_example_runs(card, exported):
    code = card[1].split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=exported[0], capture_output=True, text=True, check=True)
    assert "tf.Tensor([b'" in done.stdout


def test_tags_and_words_cannot_write_markdown_in_the_model_card(hostile_run, tmp_path):
    hostile_run.files.fetch(hostile_run.manifest("evaluate"), tmp_path)
    documents = [json.loads((tmp_path / name).read_text()) for name in ("evaluation.json", "decision.json")]
    documents[0]["words"]["python<b>"][0] = "[a](javascript:b)|`c`"
    text = model_card.text(*documents, {}, synthetic=False)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "&#91;a&#93;&#40;javascript&#58;b&#41;&#124;&#96;c&#96;" in text
