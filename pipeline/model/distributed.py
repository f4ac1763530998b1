"""Train in the processes of a cluster, each by its role, with tf.estimator.train_and_evaluate."""

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline import tf_config
from pipeline.data import posts
from pipeline.errors import BadInput, TrainingFailed, Unavailable
from pipeline.model import events, input_fn, network, training
from pipeline.progress import SaveCheckpoint, Track, log_lines, repeated
from pipeline.settings import Settings

tf1 = tf.compat.v1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """The inputs of a process of the cluster, and its place there."""

    vectors: Path
    model_dir: Path
    settings: Settings
    tags: int
    place: tf_config.Place


@dataclass(frozen=True)
class _Plan:
    """The steps of the whole cluster, and this process's own steps, on `rows` posts in the row groups `groups`."""

    steps: int
    own_steps: int
    rows: int
    groups: range


def _plan(vectors: Path, settings: Settings, place: tf_config.Place) -> _Plan:
    """Divide the row groups, so that one process trains on each post; raise BadInput if a process would have none."""
    shares = [input_fn.row_groups(vectors, (rank, place.trainers)) for rank in range(place.trainers)]
    rows = [sum(count for _, _, count in share) for share in shares]
    if not all(rows):
        raise BadInput(
            f"{sum(map(len, shares))} row groups of {posts.ROWS_PER_GROUP:,} train posts are too few for the chief and "
            f"{place.trainers - 1} workers: take workers out of every process's TF_CONFIG"
        )
    steps = [settings.epochs * math.ceil(count / settings.batch_size) for count in rows]
    rank, trainers = place.share
    return _Plan(sum(steps), steps[rank], rows[rank], range(rank, sum(map(len, shares)), trainers))


class _NoRecovery(tf.estimator.SessionRunHook):
    """Stops the process where TensorFlow would recover from the loss of another and read its share from the start."""

    def __init__(self) -> None:
        self.begun = False

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Raise Unavailable at a recovery; the first call is the start."""
        if self.begun:
            raise Unavailable("another process of the cluster was lost: start all of them again")
        self.begun = True


class _WaitForWorkers(tf.estimator.SessionRunHook):
    """Makes the chief wait after its last step until the workers' steps are done, so that its checkpoint has them."""

    def __init__(self, plan: _Plan) -> None:
        self.plan, self.done = plan, 0

    def begin(self) -> None:
        """Find the global step in the graph."""
        self.step = tf1.train.get_global_step()

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """Count a step, and wait after the last; raise Unavailable if the global step stands still for too long."""
        self.done += 1
        if self.done < self.plan.own_steps:
            return
        reached, limit = 0, time.monotonic() + tf_config.LONGEST_WAIT
        while (step := int(run_context.session.run(self.step))) < self.plan.steps:
            if step > reached:
                reached, limit = step, time.monotonic() + tf_config.LONGEST_WAIT
            if time.monotonic() > limit:
                raise Unavailable(
                    f"the workers stopped at step {step} of {self.plan.steps}: read their logs, and start all "
                    "processes of the cluster again"
                )
            time.sleep(0.1)
        run_context.request_stop()


class _EvaluationLog(tf.estimator.Exporter):
    """Logs accuracy and loss after each evaluation, in the place where Estimator would export a model."""

    name = "evaluation_log"

    def __init__(self, place: tf_config.Place, metric: str) -> None:
        self.place, self.metric = place, metric

    def export(
        self,
        estimator: tf.estimator.Estimator,
        export_path: str,
        checkpoint_path: str,
        eval_result: dict[str, Any],
        is_the_final_export: bool,
    ) -> None:
        """Log the result of an evaluation."""
        step, accuracy, loss = (eval_result[name] for name in ("global_step", self.metric, "loss"))
        log.info("%s: at step %d accuracy %.4f, loss %.4f on the test posts", self.place, step, accuracy, loss)


def _estimator(job: _Job) -> tf.estimator.Estimator:
    """Convert the network to an Estimator whose checkpoints the chief writes and reads.

    By default each parameter server would write its variables to its own disk, and the initial weights would be passed
    on in the same way; here they are initialized where they are stored.
    """
    converted = network.to_estimator(job.settings, job.tags, job.model_dir, job.place)

    def model_fn(features: Any, labels: Any, mode: str, config: Any) -> tf.estimator.EstimatorSpec:
        spec = converted.model_fn(features, labels, mode, config)
        if mode != tf.estimator.ModeKeys.TRAIN:
            return spec
        named = (
            spec.scaffold.saver._var_list
        )  # the variables by their names in the checkpoint, which only the saver knows
        saver = tf1.train.Saver(named, sharded=False, max_to_keep=1, save_relative_paths=True)
        return spec._replace(scaffold=tf1.train.Scaffold(saver=saver))

    return tf.estimator.Estimator(model_fn, model_dir=str(job.model_dir), config=converted.config)


def _run(job: _Job, plan: _Plan | None, hooks: list[Any], listeners: Sequence[Any] = ()) -> None:
    """Run train_and_evaluate, in which Estimator does what the job's place says."""
    settings, columns = job.settings, job.settings.vocabulary_size
    feed = input_fn.training(
        job.vectors,
        columns=columns,
        tags=job.tags,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        share=job.place.share,
        balanced=settings.class_weights == "balanced",
    )
    test = input_fn.testing(job.vectors, columns=columns, tags=job.tags)
    train_spec = tf.estimator.TrainSpec(
        feed, max_steps=plan.steps if plan else 1, hooks=[_NoRecovery(), *hooks], saving_listeners=listeners
    )
    eval_spec = tf.estimator.EvalSpec(
        test,
        steps=None,
        exporters=_EvaluationLog(job.place, network.metric(settings)),
        start_delay_secs=0,
        throttle_secs=1,
    )
    with _exit_without_servers(job.place):
        tf.estimator.train_and_evaluate(_estimator(job), train_spec, eval_spec)


@contextmanager
def _exit_without_servers(place: tf_config.Place) -> Iterator[None]:
    """Exit with status 1 if a parameter server does not start or no longer answers.

    TensorFlow would wait for it endlessly, in a call that no exception can interrupt.
    """
    limit = time.monotonic() + tf_config.LONGEST_WAIT

    def look() -> None:
        nonlocal limit
        if all(map(tf_config.answers, place.addresses[tf_config.PS])):
            limit = time.monotonic() + tf_config.LOST
        elif time.monotonic() > limit:
            log.error("%s: a parameter server does not answer; start all processes of the cluster again", place)
            os._exit(1)

    trains = place.kind in (tf_config.CHIEF, tf_config.WORKER)
    with repeated(look, tf_config.POLL) if trains else nullcontext():
        yield


def _log_share(place: tf_config.Place, plan: _Plan) -> None:
    first, last, every = plan.groups[0], plan.groups[-1], plan.groups.step
    share = f"{plan.rows:,} train posts, row groups {first} to {last} by {every}"
    log.info("%s trains on its share, %s: %d of %d steps", place, share, plan.own_steps, plan.steps)


def train(
    vectors: Path,
    model_dir: Path,
    settings: Settings,
    tags: int,
    place: tf_config.Place,
    track: Track,
    save: SaveCheckpoint,
) -> training.Training:
    """Train as the chief, on its share of the posts, and write the checkpoint that the whole cluster trained.

    Processes apply their steps in no fixed order, so the seed does not determine the weights. The global step may
    exceed the plan by one step for each worker. Raises TrainingFailed as training.train does, and Unavailable if the
    port is in use or the workers do not advance.
    """
    place.check_port()
    plan = _plan(vectors, settings, place)
    _log_share(place, plan)
    start = time.monotonic()
    with track("train", "steps", plan.own_steps) as advance:
        progress = training.ProgressHook(advance)
        try:
            job = _Job(vectors, model_dir, settings, tags, place)
            checkpoints = training.CheckpointHook(model_dir, 0, plan.steps, progress, save)
            _run(job, plan, [progress, checkpoints, _WaitForWorkers(plan)], [checkpoints.listener])
        except tf.estimator.NanLossDuringTrainingError:
            raise training.diverged(math.nan, settings) from None
    reached = training.step_of(model_dir)
    if not plan.steps <= reached < plan.steps + place.trainers:
        raise TrainingFailed(
            f"global_step is {reached} after training, but the shares of {place.trainers} processes require "
            f"{plan.steps}: start all processes of the cluster again"
        )
    if not math.isfinite(progress.loss):
        raise training.diverged(progress.loss, settings)
    training.drop_initial_weights(model_dir)
    events.write(model_dir, progress.losses | {progress.step: progress.loss}, {})
    log.info("the cluster has done %d steps of %d", reached, plan.steps)
    rate = reached * settings.batch_size / (time.monotonic() - start)
    return training.Training(reached, progress.loss, round(rate, 1), 0, [], None, settings.temperature, None)


def take_part(vectors: Path, model_dir: Path, settings: Settings, tags: int, place: tf_config.Place) -> None:
    """Run as a worker, a parameter server, which never returns, or the evaluator.

    Raises BadInput if there are fewer row groups than processes that train.
    """
    job = _Job(vectors, model_dir, settings, tags, place)
    if place.kind == tf_config.PS:
        log.info("%s stores the weights", place)
        _run(job, None, [])
        return
    plan = _plan(vectors, settings, place)
    if place.kind == tf_config.EVALUATOR:
        log.info("%s evaluates each checkpoint that the chief saves", place)
        _run(job, plan, [])
        return
    _log_share(place, plan)
    # Estimator checks only every 30 seconds whether the chief has initialized the weights. By RunConfig's delay a
    # worker begins five seconds after this wait, when the chief mostly has.
    while not tf_config.answers(place.addresses[tf_config.CHIEF][0]):
        time.sleep(tf_config.POLL)
    with log_lines("train", "steps", plan.own_steps) as advance:
        _run(job, plan, [training.ProgressHook(advance)])
    log.info("%s has done its steps", place)
