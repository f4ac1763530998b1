"""Posts with several tags through all six stages, and all that is made of such a model afterwards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from pipeline.checks import thresholds
from pipeline.data import posts, several_tags
from pipeline.errors import BadInput, ExportRefused, GateNotPassed
from pipeline.files import read_lines
from pipeline.model import parity, serving
from pipeline.published import parity as published_parity
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.report import page
from pipeline.report.compare import Comparison
from pipeline.report.frames import Runs
from pipeline.run.runner import run_stage
from pipeline.scoring import predict
from pipeline.scoring.watch import watch
from pipeline.settings import Deployment, Settings
from pipeline.sources import sample
from pipeline.sources.source import Source
from pipeline.stages import export
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, inputs_of, write_csv

SOURCE = "sample://posts?rows=3000&seed=3&tags=3"
FEW = {"epochs": 4, "hidden_units": 64, "learning_rate": 0.01, "vocabulary_size": 600, "multi_tag": True}


def begin(store: Store, name: str, **changed: object) -> Run:
    run = Run(store, name)
    settings = {"source": SOURCE, "validation_fraction": 0.2, "min_accuracy": 0.2} | FEW | changed
    run.begin(Settings.of(settings), CREATED if name == "several" else CREATED.replace(day=12))
    return run


def done(run: Run, until: str = "export") -> Run:
    for stage in STAGES:
        run_stage(stage, run)
        if stage == until:
            break
    return run


@pytest.fixture(scope="session")
def several(once) -> Run:
    """A run on posts with up to three tags, whose version is live; not to be changed."""

    def make(folder: Path) -> None:
        done(begin(Store(str(folder / "store")), "several"))

    return Run(Store(str(once("several", make) / "store")), "several")


@pytest.fixture
def copied(several, tmp_path) -> Run:
    """A copy that may be changed."""
    shutil.copytree(several.store.url, tmp_path / "copy")
    return Run(Store(str(tmp_path / "copy")), several.name)


@pytest.fixture
def evaluation(several, tmp_path) -> dict:
    several.files.fetch(several.manifest("evaluate"), tmp_path / "evaluated")
    return json.loads((tmp_path / "evaluated/evaluation.json").read_text())


@pytest.fixture
def labels(several, tmp_path) -> list[str]:
    several.files.fetch(several.manifest("fit_vocabulary"), tmp_path / "fitted")
    return read_lines(tmp_path / "fitted/labels.txt")


def answers_of(run: Run, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The true and the predicted tags of the test posts, bool [posts, tags], and the probabilities."""
    run.files.fetch(run.manifest("evaluate"), folder)
    table = pa.Table.from_batches(list(posts.batches(folder, "predictions")))
    probabilities = np.array(table["probabilities"].to_pylist(), np.float32)
    sets = []
    for name in ("label", "predicted"):
        sets.append(np.zeros(probabilities.shape, bool))
        for row, found in enumerate(table[name].to_pylist()):
            sets[-1][row, found] = True
    return *sets, probabilities


def test_the_scores_are_those_of_the_answers(several, evaluation, tmp_path):
    true, predicted, probabilities = answers_of(several, tmp_path / "answers")
    assert evaluation["accuracy"] == pytest.approx((true == predicted).all(axis=1).mean(), abs=1e-6)
    assert evaluation["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-6)
    told = evaluation["several_tags"]
    assert told["micro_f1"] == pytest.approx(f1_score(true, predicted, average="micro"), abs=1e-6)
    assert told["tags_per_post"] == pytest.approx(true.sum(axis=1).mean(), abs=1e-4)
    limits = np.array([each["threshold"] for each in evaluation["per_tag"].values()], np.float32)
    assert (thresholds.chosen(probabilities, limits) == predicted).all()
    first = np.where(predicted, probabilities, 0).argmax(axis=1)
    assert told["first_tag_right"] == pytest.approx(true[np.arange(len(true)), first].mean(), abs=1e-6)
    assert told["first_tag_right"] > 0.8
    assert evaluation["accuracy"] > 5 * evaluation["accuracy_of_the_commonest_tag"]


def test_thresholds_are_picked_on_the_validation_posts(several, evaluation, tmp_path):
    several.files.fetch(several.manifest("train"), tmp_path / "trained")
    limits = json.loads((tmp_path / "trained/thresholds.json").read_text())
    assert limits == [each["threshold"] for each in evaluation["per_tag"].values()]
    assert len({*limits}) > 10
    true, _, probabilities = answers_of(several, tmp_path / "answers")
    half = thresholds.chosen(probabilities, np.full(len(limits), 0.5, np.float32))
    assert evaluation["macro_f1"] > f1_score(true, half, average="macro")
    validated = pq.read_table(tmp_path / "trained/validated.parquet")
    assert posts.correct(validated).mean() == pytest.approx(
        several.manifest("train").summary["curve"][-1]["accuracy"], abs=1e-6
    )


def test_confusions_are_tags_that_are_missing_and_those_in_their_place(several, evaluation, tmp_path, labels):
    true, predicted, _ = answers_of(several, tmp_path / "answers")
    missed, extra = (true & ~predicted).astype(int), (predicted & ~true).astype(int)
    pairs = missed.T @ extra
    commonest = evaluation["confusions"][0]
    assert commonest["posts"] == pairs.max()
    assert pairs[labels.index(commonest["tag"]), labels.index(commonest["predicted"])] == pairs.max()
    example = commonest["examples"][0]
    assert commonest["tag"] in example["tag"].split("|")
    assert commonest["predicted"] in example["predicted"].split("|")
    assert all(not set(each["tag"].split("|")) >= set(each["predicted"].split("|")) for each in evaluation["mistakes"])


def test_the_exported_graph_gives_the_same_tags_as_the_answers(several, tmp_path, labels):
    with model_cache.opened(Registry(several.store), None) as model, serving.opened(model) as served:
        texts = next(sample.blocks(400, 9, 3))["post"].to_pylist()
        answer = served.tag(texts)
        limits = thresholds.of_model(model)
    chosen = thresholds.chosen(answer["probabilities"], limits)
    assert set(answer) == {"tag", "tags", "probability", "probabilities"}
    names = np.array(labels)
    assert [each.decode() for each in answer["tags"]] == ["|".join(names[row]) for row in chosen]
    first = thresholds.first(answer["probabilities"], chosen)
    assert [each.decode() for each in answer["tag"]] == names[first].tolist()
    assert answer["probability"].tolist() == answer["probabilities"][np.arange(400), first].tolist()
    assert len({row.sum() for row in chosen}) > 2


def parity_cases(run, folder):
    """The file of the cases that export's parity check of the run compares."""
    inputs = inputs_of(run, folder) | {"evaluate": folder / "evaluate"}
    run.files.fetch(run.manifest("evaluate"), inputs["evaluate"])
    table = export._cases(inputs, read_lines(inputs["fit_vocabulary"] / "labels.txt"))
    pq.write_table(table, folder / "cases.parquet")
    return folder / "cases.parquet"


def test_an_export_with_other_thresholds_is_refused(several, tmp_path):
    cases = parity_cases(several, tmp_path)
    with model_cache.opened(Registry(several.store), None) as model:
        assert parity.check_parity(model, cases).faults == []
        shutil.copytree(model, tmp_path / "changed")
    table = pq.read_table(cases)
    tags = pa.array(["android|zz", *table["tag"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.schema.get_field_index("tag"), "tag", tags), cases)
    for check in (parity.check_parity, published_parity.check_parity):
        faults = check(tmp_path / "changed", cases).faults
        assert len(set(faults)) == 1
        assert "where the Estimator said 'android|zz'" in faults[0]


def test_an_export_is_refused_if_the_weights_beside_it_have_another_threshold(several, tmp_path):
    """Which the graph has in itself, so that it still gives the right tags."""
    cases = parity_cases(several, tmp_path)
    with model_cache.opened(Registry(several.store), None) as model:
        shutil.copytree(model, tmp_path / "changed")
    assert export.check_parity(tmp_path / "changed", cases).faults == []
    file = tmp_path / "changed/assets.extra/thresholds.json"
    limits = json.loads(file.read_text())
    file.write_text(json.dumps([limits[0] / 2, *limits[1:]]))
    with pytest.raises(ExportRefused, match=r"the file of weights beside the .*where the Estimator said"):
        export.check_parity(tmp_path / "changed", cases)


def test_texts_and_files_get_all_their_tags(several, tmp_path):
    rows = [(row["post"], row["tag"]) for row in next(sample.blocks(300, 9, 3)).to_pylist()]
    source = Source.parse(str(write_csv(tmp_path / "posts.csv", rows)))
    with model_cache.opened(Registry(several.store), None) as model:
        few = list(predict.tag_texts(model, [post for post, _ in rows]))
        predict.tag_file(model, source, tmp_path / "tagged.parquet", "post", 10**9)
    many = pq.read_table(tmp_path / "tagged.parquet")
    assert many.column_names == ["row", "post", "tags", "probability"]
    assert many["tags"].to_pylist() == ["|".join(each["tags"]) for each in few]
    assert all(each["tag"] in each["tags"] for each in few)
    assert np.allclose(many["probability"].to_pylist(), [each["probability"] for each in few], atol=1e-5)


def test_the_live_model_is_compared_on_all_tags_of_a_post(copied):
    second = done(begin(copied.store, "second", epochs=5, seed=1, max_regression=1), "evaluate")
    decision = second.manifest("evaluate").summary
    first = copied.manifest("evaluate").summary
    assert decision["champion_accuracy"] == pytest.approx(first["accuracy"], abs=0.002)
    [difference] = Comparison.of([copied, second]).differences
    assert difference.difference == pytest.approx(decision["accuracy"] - first["accuracy"], abs=1e-6)
    assert difference.gained + difference.lost > 0
    frame = Runs(copied.store.url).predictions("second")
    assert (frame["tag"] == frame["predicted"]).mean() == pytest.approx(decision["accuracy"], abs=1e-6)


def test_a_model_of_one_tag_is_not_compared_with_one_of_several(copied):
    one = begin(copied.store, "one", source="sample://posts?rows=1500&seed=3", multi_tag=False)
    with pytest.raises(GateNotPassed, match=r"cannot be compared with this one \(it gives a post several tags\)"):
        done(one, "evaluate")


def test_the_gate_may_ask_for_a_macro_f1(copied):
    strict = begin(copied.store, "strict", min_macro_f1=0.99, max_regression=1)
    with pytest.raises(GateNotPassed, match=r"macro F1 0\.\d{4} on the test posts is below min_macro_f1 0\.99"):
        done(strict, "evaluate")


def test_without_validation_posts_each_threshold_is_a_half_and_the_run_says_so(copied, tmp_path):
    run = done(begin(copied.store, "unvalidated", validation_fraction=0), "train")
    run.files.fetch(run.manifest("train"), tmp_path / "trained")
    assert set(json.loads((tmp_path / "trained/thresholds.json").read_text())) == {0.5}
    assert run.manifest("train").summary["warnings"] == [
        "there are no validation posts, so the threshold of each tag is 0.5: set validation_fraction"
    ]


def test_training_may_begin_from_a_live_model_of_several_tags_only(copied):
    warm = done(begin(copied.store, "warm", warm_start="live", epochs=1), "train")
    assert warm.manifest("train").summary["warm_start"]["version"] == Registry(copied.store).live()
    cold = done(begin(copied.store, "cold", epochs=1), "train")
    assert warm.manifest("train").summary["curve"][0]["loss"] < 0.8 * cold.manifest("train").summary["curve"][0]["loss"]
    one = begin(copied.store, "one", source="sample://posts?rows=1500&seed=3", multi_tag=False, warm_start="live")
    with pytest.raises(BadInput, match="gives a post several, and this run's model one: set warm_start=none"):
        done(one, "train")


def test_the_report_shows_thresholds_and_no_confusion_matrix(several):
    text = page.render(several)
    assert "accuracy (exactly the right tags)" in text
    assert ">threshold</th>" in text
    assert "did not get it, but" in text
    assert "Confusion matrix" not in text
    assert "python" in text


def test_a_live_model_is_watched_on_all_tags_of_a_post(copied, tmp_path):
    rows = [(row["post"], row["tag"]) for row in next(sample.blocks(500, 11, 3)).to_pylist()]
    source = Source.parse(str(write_csv(tmp_path / "new.csv", rows)))
    seen = watch(copied.store, source, Settings(), Deployment())
    assert seen.posts == 500
    assert seen.live.accuracy == pytest.approx(copied.manifest("evaluate").summary["accuracy"], abs=0.08)
    assert {tag: each.posts for tag, each in seen.by_tag.items()} == several_tags.by_tag(
        pd.Series([tag for _, tag in rows]).value_counts()
    )
    with model_cache.opened(Registry(copied.store), None) as model:
        told = [set(each["tags"]) for each in predict.tag_texts(model, [post for post, _ in rows])]
    true = [set(tags.split("|")) for _, tags in rows]
    assert seen.live.accuracy == pytest.approx(np.mean([one == other for one, other in zip(told, true, strict=True)]))
    of_java = [("java" in one) for one, other in zip(told, true, strict=True) if "java" in other]
    assert seen.by_tag["java"].accuracy == pytest.approx(np.mean(of_java), abs=1e-6)


def test_a_source_of_one_tag_a_post_does_not_judge_a_model_of_several(copied, tmp_path):
    rows = [(row["post"], row["tag"]) for row in next(sample.blocks(100, 11)).to_pylist()]
    source = Source.parse(str(write_csv(tmp_path / "new.csv", rows)))
    with pytest.raises(BadInput, match=r"none of the 100 new posts .* has several tags, .* learned have \d\.\d each"):
        watch(copied.store, source, Settings(), Deployment())
    few = Source.parse(str(write_csv(tmp_path / "few.csv", rows[:3])))
    assert watch(copied.store, few, Settings(), Deployment()).posts == 3


def test_of_several_tags_those_that_the_model_knows_count(copied, tmp_path):
    rows = [(row["post"], row["tag"]) for row in next(sample.blocks(60, 11, 3)).to_pylist()]
    new = [(post, f"{tags}|cobol" if at % 2 else tags) for at, (post, tags) in enumerate(rows)]
    new.append(("move corresponding", "cobol|fortran"))
    plain, mixed = (
        watch(copied.store, Source.parse(str(write_csv(tmp_path / "new.csv", each))), Settings(), Deployment())
        for each in (rows, new)
    )
    assert (mixed.posts, mixed.unknown_tags, mixed.live) == (60, 1, plain.live)
    assert any("'cobol' 31, 'fortran' 1" in warning for warning in mixed.warnings)


def test_shards_give_the_same_vectors(several, tmp_path):
    whole, sharded = tmp_path / "whole", Run(Store(str(tmp_path / "store")), "sharded")
    sharded.begin(several.existing().settings, CREATED, deployment=Deployment(shards=3))
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, sharded)
    several.files.fetch(several.manifest("vectorize"), whole)
    sharded.files.fetch(sharded.manifest("vectorize"), tmp_path / "again")
    for side in posts.SIDES:
        one, other = (pa.Table.from_batches(posts.batches(each, side)) for each in (whole, tmp_path / "again"))
        assert one.equals(other)
        assert len(one)


def test_class_weights_are_for_posts_of_one_tag():
    with pytest.raises(BadInput, match="class_weights='balanced': it weighs posts of one tag"):
        Settings.of({"multi_tag": True, "class_weights": "balanced"})
    assert Settings.of({"class_weights": "balanced"}).class_weights == "balanced"
