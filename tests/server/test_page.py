"""The page on which a person tries the live model, in a real browser."""

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright import sync_api as playwright
from playwright.sync_api import expect

from pipeline.registry.registry import Registry
from tests.conftest import programs
from tests.dags.conftest import FLAGS, in_the_browser

POST = "how do i center a <div> with css and </textarea><script>document.title='owned'</script> html?"


@pytest.fixture(scope="module")
def browser():
    [chromium] = programs("chromium").values()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def page(browser, request):
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme=request.param)
    yield page
    page.close()


@in_the_browser
def test_a_person_pastes_a_post_and_sees_its_tags_and_words(served, page, tmp_path, request):
    page.goto(str(served.client.base_url))
    expect(page.get_by_text(f"Version {Registry(served.store).live()} is live.")).to_be_visible()
    page.get_by_label("The question as its author wrote it").fill(POST)
    page.get_by_role("button", name="Tag it").click()
    best = served.client.post("/v1/models/stackoverflow_tagger:predict", json={"instances": [POST]}).json()
    tag = best["predictions"][0]["tag"]
    expect(page.get_by_role("heading", name=f"Words that speak for {tag}")).to_be_visible()
    expect(page.locator("strong")).to_have_text(tag)
    assert page.locator("section").first.get_by_role("row").count() == 5
    assert set(page.locator(".words code").all_inner_texts()) & {"css", "html", "center", "div"}
    assert page.get_by_label("The question as its author wrote it").input_value() == POST
    assert page.title() == "Tag a post"
    serious = [each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")]
    assert serious == []
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    page.screenshot(path=folder / f"serve-{request.node.callspec.id}.png", full_page=True)


def test_the_page_says_what_is_wrong_without_a_script(served):
    empty = served.client.post("/", data={"post": "  "})
    assert (empty.status_code, "there is no text: paste a post" in empty.text) == (400, True)
    long = served.client.post("/", data={"post": "a" * 100_001})
    assert (long.status_code, "may have at most 100,000" in long.text) == (413, True)
    unreadable = served.client.post("/", content=b"a=1&b=2&c=3")
    assert (unreadable.status_code, "the form cannot be read" in unreadable.text) == (400, True)
    assert "script" not in served.client.get("/").text
    assert "default-src 'none'" in served.client.get("/").headers["content-security-policy"]


def test_words_that_are_unknown_speak_for_no_tag(served):
    answer = served.client.post("/", data={"post": "zzzz qqqq"})
    assert "None of its words speaks for this tag more than for the others." in answer.text
