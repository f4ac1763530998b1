import numpy as np
import pytest
import tensorflow as tf

from pipeline import posts
from pipeline.estimator import network, training
from pipeline.runner import run_stage
from pipeline.runs import Run
from pipeline.settings import Settings
from pipeline.store import Store
from tests.conftest import CREATED


def test_the_network_is_the_articles():
    model = network.keras_model(Settings(), 20)
    assert [(layer.name, layer.units, layer.activation.__name__) for layer in model.layers] == [
        ("posts", 512, "relu"),
        ("labels", 20, "softmax"),
    ]
    assert (model.loss, model.optimizer._name) == ("categorical_crossentropy", "Adam")
    assert model.optimizer.learning_rate.numpy() == np.float32(0.001)


def test_dropout_stands_between_the_layers():
    model = network.keras_model(Settings(dropout=0.5, hidden_units=8), 3)
    assert [layer.name for layer in model.layers] == ["posts", "dropout", "labels"]
    assert model.layers[1].rate == 0.5


def test_the_estimator_is_a_converted_one_and_takes_posts_input(tmp_path):
    estimator = network.to_estimator(Settings(vocabulary_size=4, hidden_units=3), 2, tmp_path)
    assert type(estimator) is tf.estimator.Estimator

    def feed():
        return tf.data.Dataset.from_tensors({network.FEATURE: np.eye(4, dtype=np.float32)})

    (answer,) = estimator.predict(feed, yield_single_examples=False)
    assert answer["labels"].shape == (4, 2)
    assert answer["labels"].sum(axis=1) == pytest.approx(1)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Vectors of 4,000 train and 4,000 test posts: so many that chance moves an accuracy by half a point at most."""
    folder = tmp_path_factory.mktemp("parity")
    run = Run(Store(str(folder / "store")), "parity")
    run.begin(Settings.of({"source": "sample://posts?rows=8000&seed=7", "train_fraction": 0.5}), CREATED)
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    run.fetch(run.manifest("vectorize"), folder / "vectors")
    return folder / "vectors"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_estimator_is_as_accurate_as_keras_fit_on_the_same_vectors(vectors, tmp_path, dropout):
    settings = Settings.of({"dropout": dropout, "epochs": 4})
    (train, labels), (test, truth) = (_dense(vectors, side) for side in posts.SIDES)

    model = network.keras_model(settings, 20)
    model.fit(train, tf.one_hot(labels, 20), settings.batch_size, settings.epochs, verbose=0)
    keras = (model.predict(test, verbose=0).argmax(axis=1) == truth).mean()

    training.train(vectors, tmp_path / "model", settings, 20)
    with network.trained(tmp_path / "model", settings, 20) as estimator:
        feed = lambda: tf.data.Dataset.from_tensors({network.FEATURE: test})  # noqa: E731 - built in the Estimator's graph
        (answer,) = estimator.predict(feed, yield_single_examples=False)
    ours = (answer["labels"].argmax(axis=1) == truth).mean()
    print(f"keras fit {keras:.4f}, the Estimator {ours:.4f}")  # noqa: T201 - shown where it fails
    assert abs(ours - keras) <= 0.015
    assert ours > 0.75


def _dense(folder, side):
    rows = [row for batch in posts.batches(folder, side) for row in batch.to_pylist()]
    vectors = np.zeros((len(rows), 1000), np.float32)
    for at, row in enumerate(rows):
        vectors[at, row["indices"]] = row["values"]
    return vectors, np.array([row["label"] for row in rows])
