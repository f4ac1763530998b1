"""A published model answers texts without TensorFlow as its SavedModel does, or is refused when it is opened."""

import json
import shutil
import struct
import subprocess
import sys
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from pipeline.data.weights import FILE, Weights
from pipeline.errors import CorruptArtifact
from pipeline.model import serving
from pipeline.published.arrays import FEW
from pipeline.published.model import PublishedModel
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry

TEXTS = [
    "a java list",
    "",
    "naïve \U0001f642 İΣ",
    "list comprehension in python" * 50,
    "how do I center a div with css",
]


@pytest.fixture
def folder(finished_run, tmp_path):
    with model_cache.opened(Registry(finished_run.store), None) as model:
        shutil.copytree(model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def model(folder):
    with closing(PublishedModel.open(folder, 7)) as model:
        yield model


def test_it_answers_as_its_saved_model_does(folder, model):
    with serving.opened(folder) as served:
        expected = served.tag(TEXTS)
    answers = model.answer(TEXTS)
    assert answers.tags == [tag.decode() for tag in expected["tag"]]
    assert answers.given == answers.tags
    assert answers.probabilities.dtype == answers.best.dtype == np.float32
    np.testing.assert_allclose(answers.probabilities, expected["probabilities"], atol=1e-6)
    np.testing.assert_allclose(answers.best, expected["probability"], atol=1e-6)
    assert (answers.version, answers.labels, len(answers)) == (7, model.labels, len(TEXTS))


def test_few_posts_many_and_batches_are_computed_differently_and_answered_equally(model):
    few = model.answer(TEXTS)
    many = model.answer(TEXTS * FEW)
    [(_, batch)] = model.answer_batches([pa.record_batch({"post": pa.array(TEXTS)})])
    assert few.tags * FEW == many.tags
    assert batch.tags == few.tags
    np.testing.assert_allclose(many.probabilities, np.tile(few.probabilities, (FEW, 1)), atol=1e-6)
    np.testing.assert_allclose(few.probabilities, batch.probabilities, atol=1e-6)
    np.testing.assert_allclose(few.probabilities.sum(axis=1), 1, atol=1e-6)


def test_texts_that_are_no_unicode_and_none_are_answered(model):
    assert len(model.answer([])) == 0
    assert model.answer([b"\xff\xfe python"]).tags == model.answer(["\ufffd\ufffd python"]).tags
    assert len(model.answer(["a \ud800 lone surrogate"])) == 1


def test_vectors_are_answered_as_their_texts_are(model):
    vectors = np.concatenate([model._computing.vector(text.encode()).toarray() for text in TEXTS])
    np.testing.assert_allclose(model.from_vectors(vectors).probabilities, model.answer(TEXTS).probabilities, atol=1e-6)
    assert model.vector_size == vectors.shape[1]


def test_the_words_that_speak_for_a_tag(model):
    assert model.words_for(b"a java list", model.labels.index("java"))[0][0] == "java"


PROGRAM = """
import sys
from pathlib import Path
from pipeline.published.model import PublishedModel
model = PublishedModel.open(Path(sys.argv[1]))
print(model.answer(["a java list"]).tags[0], sorted({"tensorflow", "sklearn", "airflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("with_weights", "imported"), [(True, []), (False, ["tensorflow"])])
def test_tensorflow_is_imported_only_for_a_version_without_weights(folder, with_weights, imported):
    if not with_weights:
        (folder / FILE).unlink()
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"java {imported}\n"


def test_a_version_without_weights_answers_by_its_graph(folder, model):
    (folder / FILE).unlink()
    older = PublishedModel.open(folder)
    shutil.rmtree(folder / "assets.extra")
    oldest = PublishedModel.open(folder)
    for by_graph in (older, oldest):
        for texts in (TEXTS, TEXTS * 20):
            answers = by_graph.answer(texts)
            assert answers.tags == model.answer(texts).tags
            np.testing.assert_allclose(answers.probabilities, model.answer(texts).probabilities, atol=1e-6)
    assert older.words_for(b"a java list", model.labels.index("java"))[0][0] == "java"
    assert oldest.words_for(b"a java list", 0) == []
    older.close()
    oldest.close()


def test_a_graph_and_a_text_rule_that_differ_are_refused(folder):
    (folder / FILE).unlink()
    rule = folder / "assets.extra/words.json"
    rule.write_text(json.dumps(json.loads(rule.read_text()) | {"vector_mode": "count"}))
    with pytest.raises(CorruptArtifact, match="its graph and its text rule give different answers"):
        PublishedModel.open(folder)


def cut(content):
    return content[:-4]


def longer(content):
    return content + b"\0\0\0\0"


def of_others(content):
    header = json.dumps({"other": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0\0\0\0"


def claiming_much(content):
    """The same bytes with a first kernel of a million times as many rows."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["posts.kernel"]["shape"][0] *= 10**6
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + content[8 + length :]


@pytest.mark.parametrize("change", [cut, longer, of_others, claiming_much, lambda _: b"", lambda _: b"nonsense" * 99])
def test_a_file_that_is_not_the_weights_is_refused(folder, change):
    file = folder / FILE
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(
        CorruptArtifact, match=r"the model cannot be opened: ValueError: weights\.safetensors "
    ) as refused:
        PublishedModel.open(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", ["columns", "tags", "float64"])
def test_the_weights_of_another_network_are_refused_by_their_shapes(folder, change, monkeypatch):
    weights = PublishedModel.open(folder)._computing.weights
    arrays = [weights.posts_kernel, weights.posts_bias, weights.labels_kernel, weights.labels_bias]
    if change == "columns":
        arrays[0] = arrays[0][:-1]
    elif change == "tags":
        arrays[2:] = arrays[2][:, :-1], arrays[3][:-1]
    else:
        arrays = [each.astype(np.float64) for each in arrays]
    Weights(*arrays).write(folder / FILE)
    with pytest.raises(CorruptArtifact, match="which are not the weights of 1,000 words and 20 tags"):
        PublishedModel.open(folder)


@pytest.mark.parametrize("name", ["assets/labels.txt", "assets/vocabulary.txt", "assets.extra/counts.parquet"])
@pytest.mark.parametrize("change", ["gone", "nonsense"])
def test_a_file_that_does_not_fit_the_others_is_refused(folder, name, change):
    if change == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"nonsense\n")
    with pytest.raises(CorruptArtifact, match="the model cannot be opened: ") as refused:
        PublishedModel.open(folder)
    assert "\n" not in str(refused.value)


def test_weights_that_answer_nonsense_are_refused(folder):
    weights = PublishedModel.open(folder)._computing.weights
    weights.labels_bias[0] = np.nan
    weights.write(folder / FILE)
    with pytest.raises(CorruptArtifact, match="its answers are not probabilities"):
        PublishedModel.open(folder)
