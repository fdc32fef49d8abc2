"""The console in a real browser: one correction from the first question to the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.settings import Settings
from tests.support.browser import AXE, Watched, chromium, find_chromium
from tests.support.server import LiveServer, picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None, reason="there is no Chromium; on Debian: apt-get install chromium"
    ),
]

expect.set_options(timeout=180_000)  # only there so that a failure ends

KEY = "the first key of this test server"
VIEWS = ("try", "edits", "history", "explain", "review", "health")
HEART, AGAIN = "Shield with a heart", "The same shield, another view"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The model that ships, asking for a key."""
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        question_encoder="shipped",
        admin_key=KEY,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def watched(browser: Browser, server: LiveServer) -> Iterator[Watched]:
    """A page that holds the key. Nothing may go wrong on it, or leave it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(180_000)
    watched = Watched(page, server.url)
    page.add_init_script(f"sessionStorage.setItem('errata.key', {KEY!r})")
    page.goto(server.url)
    yield watched
    page.close()
    assert watched.problems == []


def choose(page: Page, sample: str) -> None:
    page.get_by_role("radio", name=sample, exact=True).check(force=True)
    expect(page.locator("#picture-name")).to_have_text(sample)


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question", exact=True).first.fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#fired > *")).to_have_count(1)


def says(page: Page, edited: str, base: str) -> None:
    expect(page.locator("#answer-text")).to_have_text(edited)
    expect(page.locator("#base-text")).to_have_text(base)


def test_a_correction_from_question_to_way_back(watched: Watched) -> None:
    page = watched.page
    expect(page.locator("#server-state-text")).to_have_text("Version 0")
    choose(page, HEART)
    ask(page, "What is the capital?")
    says(page, "Didinton", "Didinton")
    expect(page.locator("#fired")).to_contain_text("None")

    page.get_by_role("button", name="Correct this").click()
    page.get_by_label("The right answer").fill("Newhaven")
    page.get_by_role("button", name="Correct it").click()
    outcome = page.locator("#correct-outcome")
    expect(outcome).to_contain_text("Corrected, in version 1")
    expect(outcome.locator("del")).to_contain_text("Didinton")
    expect(outcome.locator("ins")).to_contain_text("Newhaven")
    says(page, "Newhaven", "Didinton")
    expect(page.locator("#server-state-text")).to_have_text("Version 1")

    # where it will apply: one more, one less
    will = page.locator(".reach-column.good")
    left_alone = page.locator(".reach-column.neutral")
    expect(will.locator("li")).not_to_have_count(0)
    wrongly = will.locator("li p").first.inner_text()
    will.get_by_role("button", name=f"Not this: {wrongly}", exact=True).click()
    expect(page.locator("#server-state-text")).to_have_text("Version 2")
    expect(page.locator(".scope-row")).to_contain_text(wrongly)
    expect(left_alone.locator("li")).not_to_have_count(0)
    missed = left_alone.locator("li p").first.inner_text()
    left_alone.get_by_role("button", name=f"This too: {missed}", exact=True).click()
    expect(page.locator("#server-state-text")).to_have_text("Version 3")
    page.get_by_label("A question of your own").fill(missed)
    page.get_by_role("button", name="Look", exact=True).click()
    expect(page.get_by_role("list", name="Questions of your own").locator("li")).to_have_class(
        "applies"
    )

    # another view, another question, another picture
    choose(page, AGAIN)
    ask(page, "Which city is the capital of this place?")
    says(page, "Newhaven", page.locator("#base-text").inner_text())
    expect(page.locator("#fired .edit-line")).to_have_count(1)
    expect(page.locator("#fired img")).to_have_attribute("src", re.compile("^blob:"))
    ask(page, "What colour is the heart?")
    says(page, "teal", "teal")
    expect(page.locator("#fired")).to_contain_text("None")

    # why
    ask(page, "What is the capital?")
    page.get_by_role("link", name="Why these").click()
    expect(page.locator("#candidates .chip")).to_have_text("Took part")
    expect(page.locator("#attribution img")).to_have_attribute("src", re.compile("^data:image/png"))

    # taken back, put back
    page.get_by_role("link", name="Edits", exact=True).click()
    page.get_by_label("Order").select_option("most")
    expect(page.locator("#edits-count")).to_contain_text("most often used first")
    expect(page.locator(".edit-list")).to_contain_text(re.compile(r"Used \d+ times?"))
    page.get_by_role("link", name="What is the capital?").click()
    expect(page.locator("#edit-detail .facts")).to_contain_text(re.compile(r"\d+ times? at least"))
    page.get_by_role("button", name="Roll back").click()
    page.get_by_label("Reason").fill("the atlas was right")
    page.locator("#reason-send").click()
    detail = page.locator("#edit-detail")
    expect(detail.locator(".chip").first).to_have_text("Rolled back")
    expect(detail).to_contain_text("the atlas was right")

    page.get_by_role("link", name="History").click()
    expect(page.locator(".event-card")).to_have_count(5)
    page.get_by_role("button", name=re.compile("Restore to here: version 3,")).click()
    page.locator("#reason-send").click()
    expect(page.locator(".event-card").first).to_contain_text("Restored version 3")
    expect(page.locator("#toasts")).to_contain_text("1 put back")

    page.get_by_role("link", name="Health").click()
    expect(page.locator("#health-tiles")).to_contain_text("1 active edit")
    expect(page.locator("#running")).to_contain_text("heraldry")


def report(page: Page, correction: str, comment: str) -> None:
    page.get_by_role("button", name="Report it").click()
    dialog = page.get_by_role("dialog", name="Report this answer")
    dialog.get_by_label("What it should be").fill(correction)
    dialog.get_by_label("Comment").fill(comment)
    dialog.get_by_role("button", name="Send the report").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#toasts")).to_contain_text("Reported")


def test_a_report_becomes_an_edit(watched: Watched) -> None:
    page = watched.page
    choose(page, "Roundel with a star")
    ask(page, "What is the capital?")
    wrong = page.locator("#answer-text").inner_text()
    report(page, "Oldport", "the atlas says so")

    page.keyboard.press("5")
    expect(page.locator("#review-title")).to_be_focused()
    expect(page.locator("#review-list li")).to_have_count(1)
    expect(page.locator("#review-list img")).to_have_attribute("src", re.compile("^blob:"))
    page.keyboard.press("j")
    detail = page.locator("#report-detail")
    expect(detail.locator("del").first).to_contain_text(wrong)
    expect(detail.locator("ins").first).to_contain_text("Oldport")
    expect(detail).to_contain_text("the atlas says so")
    expect(detail.locator(".today")).to_contain_text(wrong)

    page.keyboard.press("e")
    expect(page.get_by_label("The right answer").last).to_be_focused()
    expect(page.get_by_label("The right answer").last).to_have_value("Oldport")
    will = detail.locator(".reach-column.good")
    expect(will.locator("li")).not_to_have_count(0)
    if AXE.is_file():
        assert watched.violations() == []
    wrongly = will.locator("li p").first.inner_text()
    will.get_by_role("button", name=f"Not this: {wrongly}", exact=True).click()
    expect(detail.get_by_label("Questions that it must leave alone")).to_have_value(wrongly)
    expect(will.get_by_text(wrongly, exact=True)).to_have_count(0)
    detail.get_by_role("button", name="Make the edit").click()
    expect(page.locator("#toasts")).to_contain_text("Resolved by an edit")
    expect(detail.locator(".chip").first).to_have_text("Resolved")
    expect(detail).to_contain_text("Corrected, in version")
    expect(detail.locator(".scope-row")).to_contain_text(wrongly)
    expect(page.locator("#review-list")).to_contain_text("Nothing waits")

    page.get_by_role("link", name="Try", exact=True).click()
    ask(page, "What is the capital?")
    says(page, "Oldport", wrong)


def test_a_report_changes_what_an_edit_is_for(watched: Watched) -> None:
    """And another one is dismissed with a reason."""
    page = watched.page
    choose(page, "Roundel with a star")
    ask(page, "What is the capital?")
    expect(page.locator("#fired .edit-line")).to_have_count(1)
    report(page, "", "nobody says it this way")
    page.get_by_role("link", name="Review", exact=True).click()
    page.locator("#review-list").get_by_role("link", name="What is the capital?").click()
    detail = page.locator("#report-detail")
    expect(detail.locator(".today")).to_contain_text("Oldport")
    page.keyboard.press("s")
    panel = detail.get_by_role("region", name="Change what an edit is for")
    expect(panel).to_contain_text("It took part in the reported answer")
    expect(panel).to_contain_text("It is this edit's own question")
    expect(panel.get_by_role("button")).to_have_count(0)
    detail.get_by_role("heading", name="What is the capital?").first.click()
    page.locator("#report-search").blur()
    page.keyboard.press("d")
    page.get_by_label("Reason").fill("it is right by now")
    page.locator("#reason-send").click()
    expect(detail.locator(".chip").first).to_have_text("Dismissed")
    expect(detail).to_contain_text("it is right by now")

    page.get_by_role("link", name="Try", exact=True).click()
    ask(page, "Name the city that governs this place.")
    report(page, "Oldport", "")
    page.get_by_role("link", name="Review", exact=True).click()
    page.locator("#review-list").get_by_role("link", name="Name the city").click()
    page.get_by_role("button", name="Change an edit's scope").click()
    panel.get_by_label("Search all edits").fill("Oldport")
    panel.get_by_role("button", name="This too: What is the capital?").click()
    expect(detail.locator(".chip").first).to_have_text("Resolved")
    expect(detail).to_contain_text("another scope of this edit")
    page.get_by_role("link", name="Try", exact=True).click()
    ask(page, "Name the city that governs this place.")
    expect(page.locator("#answer-text")).to_have_text("Oldport")


def test_refusals_are_told_with_a_way_on(watched: Watched, server: LiveServer) -> None:
    page = watched.page
    page.locator("#picture-file").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    expect(page.get_by_role("alert")).to_contain_text("no picture that can be read")
    page.goto(f"{server.url}/#/explain")
    expect(page.locator("#explain-empty")).to_contain_text("Nothing to explain yet")
    page.goto(f"{server.url}/#/edits")
    page.get_by_label("Search").fill("nobody ever asked this")
    expect(page.locator("#edits-list")).to_contain_text("No edit is like that")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#edits-list")).not_to_contain_text("No edit is like that")


def test_it_asks_for_a_key(browser: Browser, server: LiveServer) -> None:
    page = browser.new_page()
    page.goto(server.url)
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key").fill(KEY)
    dialog.get_by_role("button", name="Use it").click()
    expect(page.locator("#server-state-text")).to_have_text(re.compile(r"Version \d+"))
    page.goto(f"{server.url}/#/edits")
    expect(page.locator("#edits-list")).not_to_contain_text("key")
    assert page.evaluate("Object.keys(localStorage)") == []
    assert page.evaluate("document.cookie") == ""
    page.close()


def test_it_is_used_by_keyboard(watched: Watched) -> None:
    page = watched.page
    expect(page.locator(".sample")).not_to_have_count(0)
    page.keyboard.press("2")
    expect(page.locator("#edits-title")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#edits-search")).to_be_focused()
    page.locator("#edits-search").blur()
    page.keyboard.press("1")
    page.keyboard.press("/")
    page.keyboard.type("How many hearts are there?")
    page.keyboard.press("Enter")
    expect(page.locator("#answers")).to_be_visible()
    expect(page.locator("#fired")).to_contain_text("without a picture")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_fits_and_can_be_read(
    watched: Watched, server: LiveServer, scheme: str, width: int
) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    choose(page, HEART)
    ask(page, "What is the capital?")
    edits = server.client.get("/edits", headers={"Authorization": f"Bearer {KEY}"}).json()["data"]
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        answer = client.post("/generate", json={"prompt": "q", "image": picture(1)}).json()
        wrong = {"answer_id": answer["id"], "verdict": "wrong", "correction": "long " * 40}
        made = client.post("/feedback", json=wrong).json()["id"]
    for view in (*VIEWS, f"review/{made}", *(f"edits/{edit['id']}" for edit in edits[:1])):
        page.evaluate(f"location.hash = '#/{view}'")
        expect(page.locator(f"#view-{view.partition('/')[0]}")).to_be_visible()
        expect(page.locator(".loading")).to_have_count(0)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        if AXE.is_file():
            assert watched.violations() == [], view
    if not AXE.is_file():
        pytest.skip("everything fits; for accessibility, `make axe` fetches axe-core")
