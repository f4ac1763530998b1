import subprocess
import sys
from itertools import product
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pipeline.data.text_rule import EXAMPLES, TextRule
from pipeline.data.vectors import MODES, vectorize
from pipeline.data.vocabulary import count_words
from pipeline.data.words import WordRule
from pipeline.files import write_lines
from pipeline.model import network, serving, warmup
from pipeline.settings import Settings

TEXTS = [
    "C++ vs. C#: \tWhich <b>is</b> faster?",
    "naïve CAFÉ über STRASSE straße",
    "ΌΔΟΣ Σ ΑΣ Ισ",
    "İstanbul I i ı",
    "line one\r\nline two\rline three",
    "zero\x00byte no\xa0break \u2028 separator \x85",
    "Ⰰ Ა ᲀ Ɥ Ꞁ 𐐀 𐕰 🙂",
    "word word word Word",
    "",
    "...",
]

TAGS = ["c++", "naïve tag\r", "java"]

alphabet = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("İΣσςßẞǅ \r\x0b\x00\xa0aAéÉ.,\t\n🙂Ⰰ"))


KINDS = [
    *product(MODES, (1, 2), ["keras"]),
    ("count", 2, "signs"),
    ("log_tfidf", 1, "signs"),
    ("log_tfidf", 2, "signs"),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def served(request, tmp_path_factory):
    """An untrained network's export with the words of TEXTS, or with their words and pairs."""
    folder, (mode, ngrams, rule) = tmp_path_factory.mktemp("served"), request.param
    chosen = Settings.of(
        {"vocabulary_size": 60 * ngrams, "hidden_units": 8, "vector_mode": mode, "word_rule": rule, "ngrams": ngrams}
    )
    vocabulary = count_words([pa.array(TEXTS)], size=chosen.vocabulary_size, ngrams=ngrams, word_rule=rule)
    assert vocabulary.pairs.any() == (ngrams == 2)
    assert ("#" in vocabulary.words.to_pylist()) == (rule == "signs")
    vocabulary.save(folder)
    write_lines(folder / "labels.txt", TAGS)
    network.to_estimator(chosen, len(TAGS), folder / "model").train(lambda: _one_batch(chosen.vocabulary_size), steps=1)
    with network.trained(folder / "model", chosen, len(TAGS)) as estimator:
        model = serving.export(
            estimator,
            vocabulary_file=folder / "vocabulary.txt",
            labels_file=folder / "labels.txt",
            settings=chosen,
            folder=folder / "exported",
        )
    for name in ("vocabulary.txt", "labels.txt"):
        (folder / name).rename(folder / f"moved-{name}")
    with serving.opened(model) as opened:
        yield opened, vocabulary, chosen, model


def _one_batch(columns):
    import tensorflow as tf

    vectors = network.features(tf.sparse.from_dense(np.random.default_rng(0).random((6, columns), np.float32)))
    labels = np.eye(len(TAGS), dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    return tf.data.Dataset.from_tensors((vectors, labels))


def dense(texts, vocabulary, chosen):
    batch = vectorize(pa.array(texts, pa.string()), vocabulary, size=chosen.vocabulary_size, mode=chosen.vector_mode)
    vectors = np.zeros((len(texts), chosen.vocabulary_size), np.float32)
    for at, (indices, values) in enumerate(zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True)):
        vectors[at, indices] = values
    return vectors


def test_the_graph_makes_the_same_vectors_as_training(served):
    opened, vocabulary, chosen, _ = served
    assert len(vocabulary.words) > 30
    np.testing.assert_allclose(
        opened.tag_and_vectors(TEXTS)[1].toarray(), dense(TEXTS, vocabulary, chosen), rtol=1e-6, atol=0
    )


@given(st.lists(st.text(alphabet, max_size=40), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_graph_makes_the_same_vectors_for_any_text(served, texts):
    opened, vocabulary, chosen, _ = served
    texts = [*texts, " ".join(texts), *TEXTS[:3]]
    np.testing.assert_allclose(
        opened.tag_and_vectors(texts)[1].toarray(), dense(texts, vocabulary, chosen), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("rule", get_args(WordRule))
def test_every_code_point_is_lower_cased_as_in_training(rule):
    import tensorflow as tf

    cased = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and chr(c).lower() != chr(c)]
    assert len(cased) > 1300
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        normalized = session.run(serving._normalized(tf.constant([f"a{one}b" for one in cased]), rule))
    assert [text.decode() for text in normalized] == [f"a{one.lower()}b" for one in cased]


def test_the_signatures_agree_and_probabilities_sum_to_one(served):
    opened, vocabulary, chosen, _ = served
    answer = opened.tag(TEXTS)
    assert set(answer) == {"tag", "probability", "probabilities"}
    assert answer["probabilities"].shape == (len(TEXTS), len(TAGS))
    assert answer["probabilities"].dtype == answer["probability"].dtype == np.float32
    assert answer["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert answer["probability"].tolist() == answer["probabilities"].max(axis=1).tolist()
    best = answer["probabilities"].argmax(axis=1)
    assert [tag.decode() for tag in answer["tag"]] == [TAGS[at] for at in best]
    vectors = dense(TEXTS, vocabulary, chosen)
    for probabilities in (opened.from_vectors(vectors), opened.from_cells(csr_matrix(vectors))):
        np.testing.assert_allclose(probabilities, answer["probabilities"], atol=1e-6)


def test_the_export_contains_its_text_rule(served):
    _, vocabulary, chosen, model = served
    rule = TextRule.of_model(model)
    again = vectorize(pa.array(TEXTS), rule.vocabulary, size=rule.size, mode=rule.mode)
    assert again == vectorize(pa.array(TEXTS), vocabulary, size=chosen.vocabulary_size, mode=chosen.vector_mode)


def test_no_posts_and_invalid_utf8_get_an_answer(served):
    opened, *_ = served
    assert opened.tag([])["tag"].shape == (0,)
    assert opened.tag_and_vectors([b"\xff\xfe word \xc3"])[1].sum() > 0


@pytest.mark.parametrize(
    "served", [("count", 1, "keras"), ("log_tfidf", 2, "signs")], indirect=True, ids=["words", "all"]
)
def test_the_export_contains_its_words_and_tags(served):
    """The files it was made from are moved away, so only the assets are left to read."""
    *_, model = served
    assert {path.name for path in (model / "assets").iterdir()} == {"vocabulary.txt", "labels.txt"}
    code = (
        "import sys, tensorflow as tf; served = tf.saved_model.load(sys.argv[1]).signatures;"
        "print(served['serving_default'](post=tf.constant(['word']))['tag'].numpy()[0].decode().strip() in "
        "['c++', 'naïve tag', 'java'], list(served['vectors'].structured_input_signature[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True)
    assert done.stdout == "True ['posts_input']\n"


def test_the_signature_for_examples_gives_every_tag_of_a_post_with_its_score(served):
    import tensorflow as tf

    opened, _, _, model = served
    feature = [{"post": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))} for text in TEXTS]
    examples = [tf.train.Example(features=tf.train.Features(feature=each)).SerializeToString() for each in feature]
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(model)).signature_def[serving.CLASSIFY]
        outputs = {name: output.name for name, output in signature.outputs.items()}
        answer = session.run(outputs, {signature.inputs["inputs"].name: examples})
    assert np.allclose(answer["scores"], opened.tag(TEXTS)["probabilities"], atol=1e-6)
    assert [[tag.decode() for tag in row] for row in answer["classes"]] == [TAGS] * len(TEXTS)
    assert signature.method_name == "tensorflow/serving/classify"


def warm_up_posts(model):
    """The posts of each request that TensorFlow Serving finds."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    records = tf.compat.v1.io.tf_record_iterator(str(model / "assets.extra" / warmup.FILE))
    entries = [PredictionLog.FromString(record) for record in records]
    return [tf.make_ndarray(entry.predict_log.request.inputs["post"]).tolist() for entry in entries]


def test_warm_up_records_are_requests_of_words_of_the_vocabulary(served):
    opened, vocabulary, _, model = served
    first, every = warm_up_posts(model)
    assert (len(first), len(every)) == (1, EXAMPLES)
    assert {word for post in every for word in post.decode().split()} <= {
        half for word in vocabulary.words.to_pylist() for half in word.split()
    }
    assert len(opened.tag(every)["tag"]) == EXAMPLES
