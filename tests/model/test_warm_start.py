"""Beginning a training from a published model's weights."""

import json

import numpy as np
import pytest

from pipeline.data.vocabulary import VOCABULARY_FILE
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.model import network
from pipeline.model.warm_start import Initial
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.stages.plan import LABELS


@pytest.fixture
def live(first):
    with model_cache.opened(Registry(first.store), None) as folder:
        yield folder


@pytest.fixture
def initial(live):
    return Initial.read(7, live, vector_mode="binary")


def weights(model):
    return [layer.get_weights() for layer in (model.get_layer("posts"), model.get_layer("labels"))]


def test_words_and_tags_are_matched_by_name_and_new_ones_keep_what_was_drawn(first, live, initial):
    settings = first.existing().settings
    words, tags = read_lines(live / "assets" / VOCABULARY_FILE), read_lines(live / "assets" / LABELS)
    assert tags == ["java", "python"]
    new_words, new_tags = ["novel", *reversed(words[2:])], ["go", "python", "java"]
    drawn = network.keras_model(settings, 3)
    (kernel, _), (outputs, bias) = weights(drawn)
    initial.put_into(drawn, new_words, new_tags)
    begun = initial.kept(new_words, len(kernel))
    kept = len(words) - 2
    assert (begun.version, begun.words_kept, begun.words_new, begun.words_lost) == (7, kept, 1, 2)
    (after, hidden_bias), (outputs_after, bias_after) = weights(drawn)
    for word in words[2:]:
        assert np.array_equal(after[1 + new_words.index(word)], initial.weights.posts_kernel[1 + words.index(word)])
    assert np.array_equal(after[1], kernel[1])
    assert np.array_equal(hidden_bias, initial.weights.posts_bias)
    assert np.array_equal(outputs_after[:, [2, 1]], initial.weights.labels_kernel)
    assert np.array_equal(bias_after[[2, 1]], initial.weights.labels_bias)
    assert np.array_equal(outputs_after[:, 0], outputs[:, 0])
    assert bias_after[0] == bias[0]


def test_words_beyond_the_vocabularys_size_are_neither_kept_nor_new(first, live, initial):
    settings = first.existing().settings.model_copy(update={"vocabulary_size": 4})
    words = read_lines(live / "assets" / VOCABULARY_FILE)
    drawn = network.keras_model(settings, 2)
    initial.put_into(drawn, words, ["java", "python"])
    assert np.array_equal(weights(drawn)[0][0][1:], initial.weights.posts_kernel[1:4])
    begun = initial.kept(words, 4)
    assert (begun.words_kept, begun.words_new, begun.words_lost) == (3, 0, len(words) - 3)


def test_what_does_not_fit_is_refused_in_one_sentence(first, live, initial, tmp_path):
    larger = first.existing().settings.model_copy(update={"hidden_units": 9})
    with pytest.raises(BadInput, match="has hidden_units=8, and this run 9: set them equal, or set warm_start=none"):
        initial.put_into(network.keras_model(larger, 2), ["a"], ["java", "python"])
    with pytest.raises(BadInput, match="reads vectors of the mode binary, and this run makes count"):
        Initial.read(7, live, vector_mode="count")
    with pytest.raises(BadInput, match=r"cannot be read \(.*\): run `tagger verify 7`, or set warm_start=none"):
        Initial.read(7, tmp_path, vector_mode="binary")
    assert json.loads((live / "assets.extra/words.json").read_text())["vector_mode"] == "binary"
