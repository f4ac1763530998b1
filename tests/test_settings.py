import jsonschema
import pytest

from pipeline.errors import BadInput
from pipeline.settings import Settings


def test_defaults_are_the_articles():
    settings = Settings()
    assert (settings.vocabulary_size, settings.hidden_units, settings.epochs, settings.batch_size) == (
        1000,
        512,
        2,
        128,
    )
    assert (settings.vector_mode, settings.train_fraction, settings.min_accuracy) == ("binary", 0.8, 0.8)


def test_values_given_win_over_variables_and_variables_over_defaults():
    settings = Settings.read({"TAGGER_EPOCHS": "3", "TAGGER_SEED": "4", "HOME": "/"}, epochs="5")
    assert (settings.epochs, settings.seed, settings.batch_size) == (5, 4, 128)


@pytest.mark.parametrize("text", ["none", "", "NULL"])
def test_none_can_be_said_in_letters(text):
    assert Settings.read({"TAGGER_MIN_ACCURACY": text, "TAGGER_SCHEDULE": text}).min_accuracy is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "no setting is named 'epoch': did you mean epochs?"),
        ({"epochs": 0}, "epochs=0: input should be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs='many': input should be a valid integer"),
        ({"train_fraction": 1}, "train_fraction=1: input should be less than 1"),
        ({"vector_mode": "bag"}, "vector_mode='bag': input should be 'binary', 'count', 'freq' or 'tfidf'"),
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
    params = Settings().params()
    deployment = {"store", "store_connection", "shards", "schedule", "keep_versions", "keep_days", "allowed_sources"}
    deployment.add("max_source_bytes")
    assert set(params) == set(Settings.model_fields) - deployment
    for name, param in params.items():
        schema = {key: value for key, value in param.items() if key != "default"}
        assert schema["description"], name
        jsonschema.validate(param["default"], schema)


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("dropout", 1), ("split", "random"), ("min_accuracy", 2)])
def test_a_params_schema_refuses_what_settings_refuse(name, value):
    schema = {key: value for key, value in Settings().params()[name].items() if key != "default"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema)
    with pytest.raises(BadInput):
        Settings.of({name: value})


def test_a_setting_may_be_none_in_the_form_too():
    assert Settings().params()["min_accuracy"]["type"] == ["number", "null"]
