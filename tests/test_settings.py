from pathlib import Path

import jsonschema
import pytest

from pipeline.errors import BadInput
from pipeline.settings import Deployment, Settings, read, trigger_form
from pipeline.source_policy import checked


def test_given_values_override_variables_and_variables_override_defaults():
    settings, _ = read({"TAGGER_EPOCHS": "3", "TAGGER_SEED": "4", "HOME": "/"}, epochs="5")
    assert (settings.epochs, settings.seed, settings.batch_size) == (5, 4, 128)


@pytest.mark.parametrize("text", ["none", "", "NULL"])
def test_none_can_be_written_as_text(text):
    settings, deployment = read({"TAGGER_MIN_ACCURACY": text, "TAGGER_SCHEDULE": text})
    assert (settings.min_accuracy, deployment.schedule) == (None, None)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "no setting is named 'epoch': did you mean epochs?"),
        ({"epochs": 0}, "epochs=0: input should be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs='many': input should be a valid integer"),
        ({"train_fraction": 1}, "train_fraction=1: input should be less than 1"),
        (
            {"vector_mode": "bag"},
            "vector_mode='bag': input should be 'binary', 'count', 'freq', 'tfidf' or 'log_tfidf'",
        ),
        ({"learning_rate": "nan"}, "learning_rate='nan'"),
        ({"source": ""}, "source=''"),
    ],
)
def test_refusals_name_the_setting_the_value_and_the_range(values, sentence):
    with pytest.raises(BadInput) as caught:
        Settings.of(values)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().epochs = 3


def test_every_setting_of_a_run_becomes_a_param_that_accepts_its_own_default():
    params = trigger_form(Settings(), Deployment())
    assert list(params) == list(Settings.model_fields)
    for name, param in params.items():
        schema = {key: value for key, value in param.items() if key != "default"}
        assert schema["description"], name
        jsonschema.validate(param["default"], schema)


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("dropout", 1), ("split", "random"), ("min_accuracy", 2)])
def test_a_params_schema_refuses_what_settings_refuse(name, value):
    schema = {key: value for key, value in trigger_form(Settings(), Deployment())[name].items() if key != "default"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema)
    with pytest.raises(BadInput):
        Settings.of({name: value})


def test_a_setting_may_be_none_in_the_form_too():
    assert trigger_form(Settings(), Deployment())["min_accuracy"]["type"] == ["number", "null"]


def test_the_form_describes_the_sources_it_accepts(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    here = Deployment(allowed_sources="sample://, https://posts.org/all, data")
    assert trigger_form(Settings(), here)["source"]["description"] == (
        "Where the posts are: the source that this form starts with; sample://posts?rows=N&seed=N for synthetic posts; "
        f"a CSV, JSON Lines or Parquet file, or a folder, at or below https://posts.org/all or {tmp_path}/data. The "
        "operator can allow more (TAGGER_ALLOWED_SOURCES)."
    )
    for source in ("sample://posts?rows=9&seed=1", "https://posts.org/all/of.csv", f"{tmp_path}/data/posts.csv"):
        assert checked(source, here.allowed) == source


def test_the_form_offers_no_kind_of_source_that_is_not_allowed():
    hint = trigger_form(Settings(), Deployment(allowed_sources="s3://ours"))["source"]["description"]
    assert "sample://" not in hint
    assert "at or below s3://ours." in hint
    only_samples = trigger_form(Settings(), Deployment(allowed_sources="sample://"))
    assert "file" not in only_samples["source"]["description"]


def test_the_folder_that_the_form_names_by_default_is_there(monkeypatch):
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    [folder] = [place for place in Deployment().allowed if "://" not in place]
    assert Path(folder).is_dir()
