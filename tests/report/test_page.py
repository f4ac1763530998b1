"""The report of a run: what it says, that it needs nothing else, and that posts and tags are only text in it."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.errors import BadInput, GateNotPassed
from pipeline.report import html, page
from pipeline.report.facts import Facts
from pipeline.run.runner import run_stage
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.run_files import PAGE, REPORT
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED


class Page(HTMLParser):
    """The text of a page outside of its style and figures, and its elements."""

    def __init__(self, html):
        super().__init__()
        self.text, self.elements, self.attributes, self.hidden = [], set(), [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes += attrs
        self.hidden += tag in {"style", "svg", "title"}

    def handle_endtag(self, tag):
        self.hidden -= tag in {"style", "svg", "title"}

    def handle_data(self, data):
        if not self.hidden:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def finished(finished_run):
    return Page(page.render(finished_run))


def test_the_verdict_is_one_sentence_with_the_accuracy(finished, finished_run):
    accuracy = finished_run.manifest("evaluate").summary["accuracy"]
    assert f"Passed: accuracy {accuracy:.4f} on 400 test posts." in finished.words


def test_it_says_what_the_stages_found(finished, finished_run):
    summaries = {stage: manifest.summary for stage, manifest in finished_run.manifests().items()}
    assert "no model was live to compare with: this is the first" in finished.words
    assert f"Expected calibration error {summaries['evaluate']['calibration_error']:.4f}" in finished.words
    assert f"Published as version {finished_run.existing().first_version}" in finished.words
    assert "epochs 2 3" in finished.words, "a setting that differs from the defaults"
    assert "What it confuses most" in finished.words
    for manifest in finished_run.manifests().values():
        assert manifest.digest[:16] in finished.words


def test_it_has_a_figure_for_each_of_curve_calibration_and_recall(finished):
    labels = {value for name, value in finished.attributes if name == "aria-label"}
    assert labels == {"learning curve", "calibration", "recall by tag"}


def test_it_names_the_words_that_speak_for_each_tag(finished, finished_run):
    words = Facts.of(finished_run).evaluation["words"]
    assert words.keys() == Facts.of(finished_run).evaluation["per_tag"].keys()
    for tag, strongest in words.items():
        assert 5 <= len(strongest) <= 10, tag
        assert f"{tag} {' '.join(strongest)}" in finished.words
    assert words["python"] != words["java"]


def test_the_confusion_matrix_has_a_share_for_each_pair_of_tags(finished, finished_run):
    evaluation = Facts.of(finished_run).evaluation
    first, row = next(iter(evaluation["per_tag"])), evaluation["confusion_matrix"][0]
    shares = [f"{100 * count / sum(row):.0f}" for count in row if count / sum(row) >= 0.005]
    assert sum(map(sum, evaluation["confusion_matrix"])) == evaluation["rows"]
    assert f" {first} {' '.join(shares)} " in finished.words.split("got the tag of the column", 1)[1]


def test_an_evaluation_of_an_older_version_has_a_report_with_what_there_is(finished_run):
    facts = Facts.of(finished_run)
    newer = {"words", "confusion_matrix", "slices", "slices_by_unknown_words", "confusions", "mistakes"}
    older = {name: value for name, value in facts.evaluation.items() if name not in newer}
    shown = Page(page.rendered(replace(facts, evaluation=older)))
    assert facts.verdict in shown.words
    assert "Confusion matrix" not in shown.words


def test_it_needs_nothing_else(finished):
    assert finished.elements.isdisjoint({"script", "link", "iframe", "img", "object", "form"})
    assert [pair for pair in finished.attributes if pair[0] in {"src", "srcset", "onload", "onerror"}] == []
    links = [value for name, value in finished.attributes if name in {"href", "xlink:href"}]
    assert [link for link in links if not link.startswith("#")] == []


def test_the_same_run_makes_the_same_bytes(finished_run):
    assert page.render(finished_run) == page.render(finished_run)


def test_it_is_in_the_store_with_its_digest(finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    run = Run(Store(str(tmp_path / "store")), finished_run.name)
    saved = run.files.saved(REPORT, PAGE)
    (file,) = saved.files
    path = tmp_path / "store" / saved.path / file
    accuracy = run.manifest("evaluate").summary["accuracy"]
    assert f"Passed: accuracy {accuracy:.4f} on 400 test posts." in Page(path.read_text()).words
    assert verify(run.store).faults == []
    path.write_text("changed")
    (fault,) = verify(run.store).faults
    assert fault.endswith("`tagger report finished` makes it again")
    assert Path(page.save(run)).read_text() == page.render(run)
    assert not path.exists()
    assert verify(run.store).faults == []


def test_a_refused_run_says_why(new_run):
    run = new_run(min_accuracy=1.0, epochs=1)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run_stage(stage, run)
    with pytest.raises(GateNotPassed):
        run_stage("evaluate", run)
    saved = run.files.saved(REPORT, PAGE)
    shown = Page((Path(run.store.url) / saved.path / page.FILE).read_text())
    accuracy = run.manifest("evaluate").summary["accuracy"]
    assert f"Refused: accuracy {accuracy:.4f} on 2 test posts." in shown.words
    assert f"accuracy {accuracy:.4f} on the test posts is below min_accuracy 1.0" in shown.words
    assert "Published as" not in shown.words


def test_a_run_that_ingest_refused_has_a_report_until_it_succeeds(new_run, tmp_path):
    run = new_run(text_column="body")
    with pytest.raises(BadInput):
        run_stage("ingest", run)
    shown = Page((Path(run.store.url) / run.files.saved(REPORT, PAGE).path / page.FILE).read_text())
    assert f"Refused: {run.refusal().why}" in shown.words
    assert "body" in run.refusal().why
    run.begin(run.existing().settings.model_copy(update={"text_column": "post"}), CREATED)
    run_stage("ingest", run)
    assert run.refusal() is None
    assert "Not evaluated yet." in Page(page.render(run)).words


def test_posts_tags_and_names_are_only_text(hostile_run):
    run = hostile_run
    shown = Page(page.render(run))
    assert Facts.of(run).evaluation["mistakes"]
    assert "<script>alert(1)</script>" in shown.words
    assert "{{ 7 * 7 }}" in shown.words
    assert r"\x1b[31m" in shown.words
    assert "python<b>" in shown.words
    assert shown.elements.isdisjoint({"script", "img", "b"})
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", page.render(run))


def test_a_second_run_is_shown_beside_the_live_model(two_runs):
    run = Run(two_runs, "second")
    shown, decision = Page(page.render(run)), Facts.of(run).decision
    compared = decision["comparison"]
    assert (
        f"{compared['difference']:+.4f} against the live model's {compared['champion']['accuracy']:.4f}" in shown.words
    )
    assert f"tags {compared['gained']} correctly that the live one does not" in shown.words
    assert "epochs 3 4" in shown.words, "the setting that differs from the live model's run"
    assert decision["champion_recall"].keys() == Facts.of(run).evaluation["per_tag"].keys()


def test_a_run_that_takes_all_from_the_cache_has_a_report_when_it_is_asked_for(finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    run = Run(Store(str(tmp_path / "store")), "unchanged")
    run.begin(finished_run.existing().settings, CREATED.replace(day=12))
    for stage in STAGES:
        run_stage(stage, run)
    assert run.files.saved(REPORT, PAGE) is None
    page.save(run)
    shown = Page(page.render(run))
    assert f"accuracy {finished_run.manifest('evaluate').summary['accuracy']:.4f} on 400 test posts" in shown.words
    assert verify(run.store).faults == []


def test_a_report_that_cannot_be_made_is_a_warning_and_the_run_goes_on(new_run, monkeypatch, caplog, request):
    run = new_run()
    request.addfinalizer(html._environment.cache_clear)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run_stage(stage, run)
    monkeypatch.setattr(html, "TEMPLATES", Path("nowhere"))
    html._environment.cache_clear()
    assert run_stage("evaluate", run)["verdict"] == "passed"
    assert "the report of run a could not be made: TemplateNotFound" in caplog.text
    assert run.files.saved(REPORT, PAGE) is None
