"""Read and write a training's losses as a TensorBoard event file, with the same bytes for the same training."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

tf1 = tf.compat.v1

FILE = "loss.tfevents"
"""TensorBoard reads every file with "tfevents" in its name; TensorFlow's own names contain the time and the host."""

EVERY = 100
"""The number of steps between two losses that are written."""

TAG = "loss"


def write(folder: Path, losses: Mapping[int, float]) -> None:
    """Write the losses, by step. The time of an event is its step, because the clock would change the bytes."""
    with tf.io.TFRecordWriter(str(folder / FILE)) as file:
        file.write(tf1.Event(file_version="brain.Event:2").SerializeToString())
        for step, loss in losses.items():
            summary = tf1.Summary(value=[tf1.Summary.Value(tag=TAG, simple_value=loss)])
            file.write(tf1.Event(wall_time=step, step=step, summary=summary).SerializeToString())


def read(folder: Path) -> dict[int, float]:
    """Read the losses that `write` wrote to the folder, by step; empty if there is no file."""
    if not (folder / FILE).exists():
        return {}
    return {
        event.step: value.simple_value
        for event in tf1.train.summary_iterator(str(folder / FILE))
        for value in event.summary.value
    }
