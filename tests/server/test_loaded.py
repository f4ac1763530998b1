"""A version that is loaded to answer, or is refused before it does."""

import json
import shutil

import numpy as np
import pytest

from pipeline.errors import CorruptArtifact
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.server.loaded import FEW, Loaded

TEXTS = [b"a java list", b"", "naïve \U0001f642".encode(), b"\xff\xfe python"]


@pytest.fixture
def folder(finished_run, tmp_path):
    with model_cache.opened(Registry(finished_run.store), None) as model:
        shutil.copytree(model, tmp_path / "model")
    return tmp_path / "model"


def test_few_posts_and_many_are_computed_differently_and_answered_equally(folder):
    loaded = Loaded(7, folder)
    few = loaded.probabilities(TEXTS)
    many = loaded.probabilities(TEXTS * FEW)
    assert many.shape == (len(TEXTS) * FEW, len(loaded.labels))
    assert np.allclose(many.reshape(FEW, *few.shape), few, atol=1e-6)
    loaded.close()


def test_a_version_without_a_text_rule_answers_by_its_graph(folder):
    whole = Loaded(7, folder)
    shutil.rmtree(folder / "assets.extra")
    older = Loaded(7, folder)
    assert np.allclose(older.probabilities(TEXTS * FEW), whole.probabilities(TEXTS * FEW), atol=1e-6)
    assert older.words_for(b"a java list", 0) == []
    assert whole.words_for(b"a java list", whole.labels.index("java"))[0][0] == "java"


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", "assets/vocabulary.txt"])
@pytest.mark.parametrize("change", ["gone", "nonsense"])
def test_what_cannot_be_loaded_is_refused(folder, name, change):
    if change == "gone":
        (folder / name).unlink()
    elif name != "assets/vocabulary.txt":
        (folder / name).write_bytes(b"nonsense")
    else:
        words = (folder / name).read_bytes().split(b"\n")
        (folder / name).write_bytes(b"\n".join(words[::-1]))
    with pytest.raises(CorruptArtifact, match="version 7 cannot be served") as refused:
        Loaded(7, folder)
    assert "\n" not in str(refused.value)


def test_a_version_whose_two_ways_to_answer_differ_is_refused(folder):
    rule = folder / "assets.extra/words.json"
    rule.write_text(json.dumps(json.loads(rule.read_text()) | {"vector_mode": "count"}))
    with pytest.raises(CorruptArtifact, match="its graph and its text rule give different answers"):
        Loaded(7, folder)
