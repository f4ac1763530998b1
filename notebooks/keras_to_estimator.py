# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a Keras model to a TensorFlow Estimator, and what comes after
#
# In December 2017 Google published an article on *converting a Keras model to a TensorFlow Estimator*: a network that tags
# Stack Overflow posts by their words, trained and evaluated as an Estimator. This notebook walks the same way with the
# functions of this package. Above each step stands the article's own line. The second half shows what a team needs beyond
# that, if it trains such a model every week.
#
# It runs on 4,000 **synthetic** posts, whose accuracy says nothing about real ones. For your own posts set `TAGGER_SOURCE`
# to a CSV file with the columns `post` and `tags` before you start Jupyter.

# %%
# %matplotlib inline
import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd
import tensorflow as tf

from pipeline import Runs
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import GateNotPassed
from pipeline.files import read_lines
from pipeline.model import input_fn, network
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.scoring.predict import tag_texts
from pipeline.settings import read
from pipeline.store.objects import Store
from pipeline.store.runs import Run

tf.get_logger().setLevel("ERROR")  # that Estimators are old is known
settings, _ = read(os.environ)
scratch = TemporaryDirectory(prefix="tagger-notebook-")
run = Run(Store(f"{scratch.name}/store"), "notebook")
run.begin(settings, datetime.now(UTC))
settings.source


# %%
def folder_of(stage: str) -> Path:
    """A copy of what a stage of the run left."""
    folder = Path(scratch.name, stage)
    run.files.fetch(run.manifest(stage), folder)
    return folder


# %% [markdown]
# ## The posts
#
#     data = pd.read_csv("stack-overflow-data.csv")
#     train_posts, test_posts = data["post"][:train_size], data["post"][train_size:]
#
# `ingest` reads them in batches, so they need not fit into memory, rejects rows without a text or a tag, and decides which
# posts train.

# %%
run_stage("ingest", run)
ingested = folder_of("ingest")
train_posts, test_posts = (pd.read_parquet(ingested / "posts" / side) for side in ("train", "test"))
train_posts.tag.value_counts().plot.barh(title=f"{len(train_posts):,} train posts by tag", figsize=(7, 4))
train_posts.head()

# %% [markdown]
# ## Words become numbers
#
#     tokenize = Tokenizer(num_words=1000)
#     tokenize.fit_on_texts(train_posts)
#     encoder = LabelEncoder().fit(train_tags)
#
# `fit_vocabulary` counts the words of the train posts, and fixes the words and tags that the network will know.

# %%
run_stage("fit_vocabulary", run)
fitted = folder_of("fit_vocabulary")
labels, vocabulary = read_lines(fitted / "labels.txt"), Vocabulary.load(fitted)
print(len(labels), "tags; the commonest words:", ", ".join(map(str, vocabulary.words[:20])))

# %% [markdown]
#     x_train = tokenize.texts_to_matrix(train_posts)
#
# `vectorize` writes a sparse vector for each post as Parquet, because most of the article's matrix is zeros.

# %%
run_stage("vectorize", run)
vectors = folder_of("vectorize")
pd.read_parquet(vectors / "train").head()

# %% [markdown]
# ## A Keras model becomes an Estimator
#
#     model = Sequential([Dense(512, activation="relu", name="posts"), Dense(20, activation="softmax", name="labels")])
#     model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
#     estimator = keras.estimator.model_to_estimator(model)
#
# The first layer here reads sparse vectors; its weights are those of the article's `Dense`.

# %%
network.keras_model(settings, len(labels)).summary()
estimator = network.to_estimator(settings, len(labels), Path(scratch.name, "by_hand"))

# %% [markdown]
# ## Input functions; train, evaluate, predict
#
#     train_input_fn = tf.estimator.inputs.numpy_input_fn({"posts_input": x_train}, y_train, shuffle=True)
#     estimator.train(input_fn=train_input_fn)
#     estimator.evaluate(input_fn=eval_input_fn)
#
# An input function tells the Estimator where its batches come from. These read Parquet, shuffled by a seed.

# %%
sizes = {"columns": settings.vocabulary_size, "tags": len(labels)}
train_input_fn = input_fn.training(
    vectors, **sizes, batch_size=settings.batch_size, epochs=settings.epochs, seed=settings.seed
)
test_input_fn = input_fn.testing(vectors, **sizes)

estimator.train(train_input_fn)
by_hand = estimator.evaluate(test_input_fn)
by_hand

# %% [markdown]
#     predictions = list(estimator.predict(input_fn=predict_input_fn))

# %%
answers = [answer[network.OUTPUT] for answer in estimator.predict(test_input_fn)]
first = pd.DataFrame(answers[:5], columns=labels)
shown = pd.DataFrame({"tag": test_posts.tag[:5], "predicted": first.idxmax(axis=1), "probability": first.max(axis=1)})
shown.assign(post=test_posts.post[:5].str[:70])

# %% [markdown]
# # What the pipeline adds
#
# ## The same training, as a stage
#
# `train` does what the cells above did, resumes where it was interrupted, and leaves the same bytes for the same data and
# settings. So its accuracy is the one from above.

# %%
run_stage("train", run)
runs = Runs(run.store.url)
runs.curve("notebook").plot(y="training_loss", marker="o", title="learning curve", xlabel="epoch", figsize=(5, 3))

# %% [markdown]
# ## The gate
#
# `evaluate` compares the model with the thresholds, and with the live model on the same posts. What does not pass is not
# published, and the report says why.

# %%
try:
    evaluated = run_stage("evaluate", run)
except GateNotPassed as refused:
    print(refused)
    evaluated = run.manifest("evaluate").summary
assert evaluated["accuracy"] == round(float(by_hand["accuracy"]), 6)
{name: evaluated[name] for name in ("accuracy", "macro_f1", "verdict", "warnings")}

# %%
by_tag = runs.by_tag("notebook").sort_values("recall")
by_tag.recall.plot.barh(title="recall by tag", figsize=(7, 4))
by_tag.head()

# %%
predictions = runs.predictions("notebook")
confused = pd.crosstab(predictions.tag, predictions.predicted)
figure, axes = plt.subplots(figsize=(6, 5))
axes.imshow(confused, cmap="Blues")
axes.set(xticks=range(len(confused.columns)), yticks=range(len(confused)), xlabel="predicted", ylabel="tag")
axes.set_xticklabels(confused.columns, rotation=90)
axes.set_yticklabels(confused.index)
axes.set_title("confusion matrix")

# %% [markdown]
# ## A published model reads raw text
#
# The article's exported model expects vectors, so whoever asks it must have the same tokenizer. `export` builds the words'
# rule into the SavedModel, checks in a fresh process that it answers as the Estimator does, and publishes it.

# %%
if evaluated["verdict"] == "passed":
    run_stage("export", run)
    model = Path(scratch.name, "model")
    card = Registry(run.store).fetch(None, model)
    questions = ["How do I center a div with css?", "list comprehension with two loops in python"]
    print(f"version {card.version} is live, accuracy {card.accuracy:.4f}")
    display(pd.DataFrame(tag_texts(model, questions)))

# %% [markdown]
# ## The report
#
# One page for each run says whether its model may be trusted, and why. `tagger report --open` shows it in the browser; in
# Airflow it is the run's tab *Report*.

# %%
from html import escape

from IPython.display import HTML

from pipeline.report import page

report = page.render(run)
HTML(f'<div><iframe srcdoc="{escape(report)}" width="100%" height="500"></iframe></div>')

# %% [markdown]
# ## Next
#
# Change a setting, such as `TAGGER_VECTOR_MODE=tfidf`, run again, and compare: `tagger compare` puts runs beside each
# other, and `tagger tune` searches. `make airflow` runs all of it on a schedule.

# %%
scratch.cleanup()
