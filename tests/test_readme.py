from pathlib import Path

from pipeline.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_settings_is_that_of_the_code():
    """After a change of settings, put the lines of this test's message into the README."""
    default = {"store": "`./store`"}
    for name, field in Settings.model_fields.items():
        value = default.get(name, f"`{field.default}`")
        assert f"| `{name}` | {value} | {field.description} |" in README


def test_the_readme_shows_no_command_that_tagger_lacks():
    from pipeline.cli import app

    named = {line.split()[1] for line in README.replace(";", "\n").splitlines() if line.strip().startswith("tagger ")}
    assert named == {(command.name or command.callback.__name__) for command in app.registered_commands}
