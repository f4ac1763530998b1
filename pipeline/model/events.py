"""Read and write a training's learning curve as a TensorBoard event file, the same bytes for the same training."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

tf1 = tf.compat.v1

FILE = "loss.tfevents"
"""TensorBoard reads every file with "tfevents" in its name; TensorFlow's own names contain the time and the host."""

EVERY = 10
"""The number of steps between two losses that are written."""

LOSS = "loss"
"""The tag of the losses of single steps. Those of the curve are the names of its figures, after `epoch/`."""


def write(folder: Path, losses: Mapping[int, float], curve: Mapping[int, Mapping[str, float]]) -> None:
    """Write the losses and the figures of each epoch, by step.

    The time of an event is its step, because the clock would change the bytes.
    """
    values = {step: {LOSS: loss} for step, loss in losses.items()}
    for step, figures in curve.items():
        values[step] = values.get(step, {}) | {f"epoch/{name}": figure for name, figure in figures.items()}
    with tf.io.TFRecordWriter(str(folder / FILE)) as file:
        file.write(tf1.Event(file_version="brain.Event:2").SerializeToString())
        for step, named in sorted(values.items()):
            summary = tf1.Summary(
                value=[tf1.Summary.Value(tag=tag, simple_value=value) for tag, value in named.items()]
            )
            file.write(tf1.Event(wall_time=step, step=step, summary=summary).SerializeToString())


def read(folder: Path) -> tuple[dict[int, float], dict[int, dict[str, float]]]:
    """Read the losses and the curve that `write` wrote to the folder; empty if there is no file."""
    losses, curve = dict[int, float](), dict[int, dict[str, float]]()
    if (folder / FILE).exists():
        for event in tf1.train.summary_iterator(str(folder / FILE)):
            for value in event.summary.value:
                if value.tag == LOSS:
                    losses[event.step] = value.simple_value
                else:
                    curve.setdefault(event.step, {})[value.tag.removeprefix("epoch/")] = value.simple_value
    return losses, curve
