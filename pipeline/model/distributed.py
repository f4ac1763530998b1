"""Train by tf.estimator.train_and_evaluate in several processes: what each does of it, by its place in the cluster."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline import progress, tf_config
from pipeline.data import posts
from pipeline.errors import BadInput, TrainingFailed, Unavailable
from pipeline.model import input_fn, network, training
from pipeline.settings import Settings

tf1 = tf.compat.v1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """What every process of a cluster is given."""

    vectors: Path
    model_dir: Path
    settings: Settings
    tags: int
    place: tf_config.Place


@dataclass(frozen=True)
class _Plan:
    """The `steps` of the cluster, and the `own` of this process: of its `rows` posts, in its row groups `groups`."""

    steps: int
    own: int
    rows: int
    groups: range


def _plan(vectors: Path, settings: Settings, place: tf_config.Place) -> _Plan:
    """Each post is trained on once an epoch, by one process. Raises BadInput where one would have none."""
    shares = [input_fn.row_groups(vectors, (rank, place.trainers)) for rank in range(place.trainers)]
    rows = [sum(count for _, _, count in share) for share in shares]
    if not all(rows):
        raise BadInput(
            f"{sum(map(len, shares))} row groups of {posts.ROWS_PER_GROUP:,} train posts are too few for the chief and "
            f"{place.trainers - 1} workers: take workers out of every process's TF_CONFIG"
        )
    steps = [settings.epochs * math.ceil(count / settings.batch_size) for count in rows]
    mine, of = place.share
    return _Plan(sum(steps), steps[mine], rows[mine], range(mine, sum(map(len, shares)), of))


class _Once(tf.estimator.SessionRunHook):
    """Ends the process where TensorFlow would go on after another was lost, not knowing what of a share was read."""

    def __init__(self) -> None:
        self.begun = False

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Called once at the start, and once for each recovery."""
        if self.begun:
            raise Unavailable("another process of the cluster was lost: start all of them again")
        self.begun = True


class _Last(tf.estimator.SessionRunHook):
    """Holds the chief back after the last step of its own until the others' steps are done, so that all are kept."""

    def __init__(self, plan: _Plan) -> None:
        self.plan, self.done = plan, 0

    def begin(self) -> None:
        """Find the step in the graph."""
        self.step = tf1.train.get_global_step()

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """One step of its own is done. Raises Unavailable where nobody takes a step for too long."""
        self.done += 1
        if self.done < self.plan.own:
            return
        reached, limit = 0, time.monotonic() + tf_config.PATIENCE
        while (step := int(run_context.session.run(self.step))) < self.plan.steps:
            if step > reached:
                reached, limit = step, time.monotonic() + tf_config.PATIENCE
            if time.monotonic() > limit:
                raise Unavailable(
                    f"the workers stopped at step {step} of {self.plan.steps}: look into their logs, and start all "
                    "processes of the cluster again"
                )
            time.sleep(0.1)
        run_context.request_stop()


class _Measured(tf.estimator.Exporter):
    """Where Estimator would have an evaluator export, it says what it has measured."""

    name = "measured"

    def __init__(self, place: tf_config.Place) -> None:
        self.place = place

    def export(
        self,
        estimator: tf.estimator.Estimator,
        export_path: str,
        checkpoint_path: str,
        eval_result: dict[str, Any],
        is_the_final_export: bool,
    ) -> None:
        """Called after each evaluation."""
        step, accuracy, loss = (eval_result[name] for name in ("global_step", "accuracy", "loss"))
        log.info("%s: at step %d accuracy %.4f, loss %.4f on the test posts", self.place, step, accuracy, loss)


def _estimator(job: _Job) -> tf.estimator.Estimator:
    """The converted Estimator, whose checkpoints the chief itself writes and reads.

    By itself it has each variable's own process do so, a parameter server into a folder on its own disk; and it hands
    round the weights it begins with in the same way, so here they are drawn where they lie.
    """
    converted = network.to_estimator(job.settings, job.tags, job.model_dir, job.place)

    def model_fn(features: Any, labels: Any, mode: str, config: Any) -> tf.estimator.EstimatorSpec:
        spec = converted.model_fn(features, labels, mode, config)
        if mode != tf.estimator.ModeKeys.TRAIN:
            return spec
        named = spec.scaffold.saver._var_list  # the checkpoint's own names, which only the saver knows
        saver = tf1.train.Saver(named, sharded=False, max_to_keep=1, save_relative_paths=True)
        return spec._replace(scaffold=tf1.train.Scaffold(saver=saver))

    return tf.estimator.Estimator(model_fn, model_dir=str(job.model_dir), config=converted.config)


def _run(job: _Job, plan: _Plan | None, hooks: list[Any], listeners: Sequence[Any] = ()) -> None:
    """What Estimator does with such a place."""
    settings, columns = job.settings, job.settings.vocabulary_size
    feed = input_fn.training(
        job.vectors,
        columns=columns,
        tags=job.tags,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        share=job.place.share,
    )
    test = input_fn.testing(job.vectors, columns=columns, tags=job.tags)
    train_spec = tf.estimator.TrainSpec(
        feed, max_steps=plan.steps if plan else 1, hooks=[_Once(), *hooks], saving_listeners=listeners
    )
    eval_spec = tf.estimator.EvalSpec(
        test, steps=None, exporters=_Measured(job.place), start_delay_secs=0, throttle_secs=1
    )
    with tf_config.servers_missed(job.place):
        tf.estimator.train_and_evaluate(_estimator(job), train_spec, eval_spec)


def _tell(place: tf_config.Place, plan: _Plan) -> None:
    first, last, every = plan.groups[0], plan.groups[-1], plan.groups.step
    whose = f"{plan.rows:,} train posts, row groups {first} to {last} by {every}"
    log.info("%s trains on its own %s: %d of %d steps", place, whose, plan.own, plan.steps)


def train(vectors: Path, model_dir: Path, settings: Settings, tags: int, place: tf_config.Place) -> training.Training:
    """Train as the chief, on its share of the posts, and keep what all processes of the cluster have made.

    Steps meet in the order in which they happen to come, so no seed gives the same weights twice. A worker that had to
    begin anew may add steps, one for each worker at the most. Raises TrainingFailed as training.train does, and
    Unavailable where its port is taken or the workers stay away.
    """
    place.check_port()
    plan = _plan(vectors, settings, place)
    _tell(place, plan)
    start = time.monotonic()
    with progress.track("train", "steps", plan.own) as advance:
        watch = training.Watch(advance)
        try:
            job, keeper = _Job(vectors, model_dir, settings, tags, place), training.Keeper(model_dir, plan.steps)
            _run(job, plan, [watch, _Last(plan)], [keeper])
        except tf.estimator.NanLossDuringTrainingError:
            raise training.diverged(math.nan, settings) from None
    reached = training.step_of(model_dir)
    if not plan.steps <= reached < plan.steps + place.trainers:
        raise TrainingFailed(
            f"global_step is {reached} after training where the shares of {place.trainers} processes make "
            f"{plan.steps}: start all processes of the cluster again"
        )
    if not math.isfinite(watch.loss):
        raise training.diverged(watch.loss, settings)
    training.drop_initial_weights(model_dir)
    log.info("the cluster has done %d steps of %d", reached, plan.steps)
    rate = reached * settings.batch_size / (time.monotonic() - start)
    return training.Training(reached, watch.loss, round(rate, 1), 0)


def take_part(vectors: Path, model_dir: Path, settings: Settings, tags: int, place: tf_config.Place) -> None:
    """Train, hold the weights, or measure checkpoints, as any but the chief; a parameter server never returns.

    Raises BadInput where there are fewer row groups than processes.
    """
    job = _Job(vectors, model_dir, settings, tags, place)
    if place.kind == tf_config.PS:
        log.info("%s holds the weights", place)
        _run(job, None, [])
        return
    plan = _plan(vectors, settings, place)
    if place.kind == tf_config.EVALUATOR:
        log.info("%s measures each checkpoint that the chief keeps", place)
        _run(job, plan, [])
        return
    _tell(place, plan)
    # Estimator looks every 30 seconds whether the chief has drawn the weights: five seconds after the chief's server
    # has begun to listen, it mostly has.
    while not tf_config.answers(place.addresses[tf_config.CHIEF][0]):
        time.sleep(tf_config.POLL)
    with progress.track("train", "steps", plan.own) as advance:
        _run(job, plan, [training.Watch(advance)])
    log.info("%s has done its steps", place)
