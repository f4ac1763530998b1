"""The notebook of Google's article of December 2017 as one script: `python -m benchmarks.notebook posts.csv`.

It uses nothing of the pipeline. It trains on the first half of the posts and prints the accuracy on the second half.
"""

import json
import sys
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.preprocessing import LabelEncoder
from tensorflow.keras.preprocessing.text import Tokenizer

WORDS, EPOCHS, BATCH = 1000, 2, 128


def main(path: str, folder: str) -> float:
    """Do all that the notebook does, from reading the posts to exporting the model; return the accuracy."""
    data = pd.read_csv(path)
    half = len(data) // 2
    train_posts, test_posts = data["post"][:half], data["post"][half:]
    tokenizer = Tokenizer(num_words=WORDS)
    tokenizer.fit_on_texts(train_posts)
    train_matrix, test_matrix = (
        tokenizer.texts_to_matrix(posts, "binary").astype(np.float32) for posts in (train_posts, test_posts)
    )
    encoder = LabelEncoder().fit(data["tags"][:half])
    train_labels, test_labels = (
        tf.keras.utils.to_categorical(encoder.transform(tags)) for tags in (data["tags"][:half], data["tags"][half:])
    )
    hidden = tf.keras.layers.Dense(512, "relu", input_shape=(WORDS,), name="posts")
    model = tf.keras.Sequential([hidden, tf.keras.layers.Dense(len(encoder.classes_), "softmax", name="labels")])
    optimizer = tf.keras.optimizers.legacy.Adam()
    model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    estimator = tf.keras.estimator.model_to_estimator(model, model_dir=f"{folder}/model")
    estimator.train(_feed(train_matrix, train_labels, num_epochs=EPOCHS, shuffle=True))
    accuracy = estimator.evaluate(_feed(test_matrix, test_labels, num_epochs=1, shuffle=False))["accuracy"]
    for _ in estimator.predict(_feed(test_matrix, None, num_epochs=1, shuffle=False)):
        pass
    receiver = {"posts_input": tf.TensorSpec([None, WORDS], tf.float32)}
    estimator.export_saved_model(f"{folder}/export", _receive(receiver))
    return float(accuracy)


def _feed(matrix: np.ndarray, labels: np.ndarray | None, **how: object) -> object:
    numpy_input_fn = tf.compat.v1.estimator.inputs.numpy_input_fn
    return numpy_input_fn({"posts_input": matrix}, labels, batch_size=BATCH, **how)


def _receive(specs: dict[str, tf.TensorSpec]) -> object:
    def receiver() -> tf.estimator.export.ServingInputReceiver:
        inputs = {name: tf.compat.v1.placeholder(spec.dtype, spec.shape, name) for name, spec in specs.items()}
        return tf.estimator.export.ServingInputReceiver(inputs, inputs)

    return receiver


if __name__ == "__main__":
    with TemporaryDirectory(prefix="tagger-notebook-") as scratch:
        print(json.dumps({"accuracy": main(sys.argv[1], scratch)}))
