"""Pictures of every view of the console, of a server that holds a few edits.

`make screenshots`, or `make screenshots ARGS=phone` for one kind of light, dark and phone.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page

from app.settings import Settings
from tests.support.browser import chromium
from tests.support.server import ROOT, LiveServer

SAMPLES = ROOT / "app" / "console" / "samples"

KINDS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "light",
        "device_scale_factor": 2,
        "has_touch": True,
    },
}


def sample(name: str) -> str:
    data = (SAMPLES / f"{name}.png").read_bytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def prepare(client: httpx.Client) -> str:
    """Some history to look at. Returns the id of an edit."""

    def post(path: str, **body: Any) -> dict[str, Any]:
        response = client.post(path, json=body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def correct(name: str, prompt: str, target: str, **more: Any) -> str:
        body = {"image": sample(name), "prompt": prompt, "target": target} | more
        return str(post("/edits", **body)["id"])

    colour = correct("ring", "What colour is the ring?", "red", tags=["colours"])
    correct("hexagon", "Which charge is at the top?", "heart", note="Seen in the atlas of 2026.")
    post(f"/admin/edits/{colour}/rollback", reason="The atlas was right after all.")
    correct("heart", "What colour is the border?", "green", verify="report")
    capital = correct("heart", "What is the capital?", "Newhaven", tags=["places"])
    post(f"/edits/{capital}/scope", rephrases=["Capital city?"], reason="From the log.")
    for name, question, fields in (
        ("pennant", "What is the capital?", {"correction": "Oldport", "comment": "By the atlas."}),
        ("star", "Who governs this place?", {"comment": "It does not know."}),
        ("ring", "What colour is the ring?", {"verdict": "right"}),
        ("heart", "What is the capital?", {"correction": "Newhaven upon the river"}),
    ):
        answer = post("/generate", prompt=question, image=sample(name))
        post("/feedback", answer_id=answer["id"], **{"verdict": "wrong"} | fields)
    return capital


def try_view(page: Page) -> None:
    page.get_by_role("radio", name="Shield with a heart").check(force=True)
    page.get_by_role("button", name="What is the capital?").click()
    page.locator("#fired .edit-line").wait_for()
    page.locator("#fired img[src]").wait_for()


def corrected(page: Page) -> None:
    page.get_by_role("radio", name="Roundel with a star").check(force=True)
    page.get_by_role("button", name="What is the capital?").click()
    page.get_by_role("button", name="Correct this").click()
    page.locator("#correct-form").get_by_label("The right answer").fill("Oldport")
    page.get_by_role("button", name="Correct it").click()
    page.locator(".reach-list").first.wait_for()


def photograph(
    browser: Browser, url: str, edit_id: str, out: Path, *, kinds: Sequence[str]
) -> None:
    for kind in kinds:
        context = browser.new_context(**KINDS[kind])
        context.set_default_timeout(120_000)
        page = context.new_page()

        def shot(name: str, kind: str = kind, page: Page = page) -> None:
            page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)
            page.screenshot(path=out / f"{name}-{kind}.png", full_page=True)

        page.goto(url)
        page.locator("#server-state[data-state=ready]").wait_for()
        page.locator(".sample").first.wait_for()
        shot("try-empty")
        try_view(page)
        shot("try")
        if kind == "light":
            page.screenshot(path=out / "readme.png")
        page.goto(f"{url}/#/explain")
        page.locator("#attribution img").wait_for()
        page.locator("#candidates .edit-line img[src]").first.wait_for()
        shot("explain")
        steps: list[tuple[str, str, str]] = [
            ("edits", "#/edits", ".edit-list img[src]"),
            ("edit", f"#/edits/{edit_id}", "#edit-detail .reach-list"),
            ("history", "#/history", ".timeline img[src]"),
            ("health", "#/health", "#load-chart svg"),
        ]
        report = page.request.get(f"{url}/feedback?limit=1").json()["data"][0]["id"]
        steps[3:3] = [
            ("review", "#/review", "#review-list img[src]"),
            ("report", f"#/review/{report}", "#report-detail .today"),
        ]
        for name, path, wanted in steps:
            page.goto(f"{url}/{path}")
            page.locator(wanted).first.wait_for()
            shot(name)
            if name == "report":
                page.get_by_role("button", name="Make it an edit").click()
                page.locator("#report-detail .reach-list").first.wait_for()
                shot("report-edit")
        if kind == "light":
            page.goto(f"{url}/#/try")
            corrected(page)
            shot("corrected")
            page.get_by_role("button", name="API key").click()
            page.wait_for_timeout(300)
            page.screenshot(path=out / "key-light.png")
            page.goto(f"{url}/docs")
            page.locator(".opblock").first.wait_for()
            shot("docs")
        context.close()


def main(out: Path, kinds: Sequence[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load(data_dir=Path(folder), device="cpu")
        with LiveServer(settings) as server, chromium() as browser:
            photograph(browser, server.url, prepare(server.client), out, kinds=kinds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(KINDS))
