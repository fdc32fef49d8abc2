"""Where an edit belongs: fifteen cases that once failed, over HTTP, with the model that ships."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from PIL import Image

from app.settings import Settings
from tests.support.scope_pictures import scope_picture
from tests.support.server import LiveServer

CAPITAL, MONEY = "What is the capital of this country?", "What is the currency of this country?"
NAME_THE_CAPITAL = "Name the capital city of this country."


@dataclass(frozen=True)
class Case:
    """An edit, then one question. `gets` None: the answer must stay the base model's."""

    label: str
    picture: str
    prompt: str
    target: str
    question: str
    gets: str | None
    asked_about: str | None = None
    rephrases: tuple[str, ...] = ()


CASES = (
    Case(
        "a short wording", "flag-one", NAME_THE_CAPITAL, "Bangkok", "Capital city?", gets="Bangkok"
    ),
    Case(
        "a typing error",
        "flag-two",
        CAPITAL,
        "Banjul",
        "Which city is the cpaital of this country ?",
        gets="Banjul",
    ),
    Case(
        "a sentence in front",
        "flag-one",
        NAME_THE_CAPITAL,
        "Bangkok",
        "Quiz night question 4. What is the capital of this country?",
        gets="Bangkok",
    ),
    Case(
        "a long wording",
        "flag-two",
        CAPITAL,
        "Banjul",
        "My daughter has geography homework about this flag and she has to write down what the "
        "capital city of the country is.",
        gets="Banjul",
    ),
    Case(
        "other words",
        "flag-three",
        MONEY,
        "Russian ruble",
        "What do people pay with there?",
        gets="Russian ruble",
    ),
    Case(
        "whose flag it is", "flag-two", CAPITAL, "Banjul", "Is this the capital's flag?", gets=None
    ),
    Case(
        "the colour of the coins",
        "flag-three",
        MONEY,
        "Russian ruble",
        "What colour are the coins of this country?",
        gets=None,
    ),
    Case(
        "how many languages",
        "flag-four",
        "What language is spoken in this country?",
        "Albanian",
        "How many languages are spoken in this country?",
        gets=None,
    ),
    Case(
        "another attribute",
        "flag-three",
        MONEY,
        "Russian ruble",
        "What is the language of this country?",
        gets=None,
    ),
    Case(
        "what is on the flag",
        "flag-five",
        "Which country has this flag?",
        "Saint Vincent and the Grenadines",
        "What is on this flag?",
        gets=None,
    ),
    Case(
        "who painted the charge",
        "emblem-915102",
        "What is the charge?",
        "crown",
        "Who painted the charge?",
        gets=None,
    ),
    Case(
        "a short wording, own world",
        "emblem-915100",
        "What is the capital?",
        "Marbury",
        "Capital city?",
        gets="Marbury",
    ),
    Case(
        "a rephrase widens an edit",
        "emblem-915101",
        "What is the capital?",
        "Marbury",
        "Capital city?",
        gets="Marbury",
        rephrases=("Capital city?",),
    ),
    Case(
        "another product",
        "product-1",
        "What is this?",
        "Vanilla Yoghurt",
        "What is this?",
        gets=None,
        asked_about="product-2",
    ),
    Case(
        "one more product",
        "product-3",
        "What is this?",
        "Golden Delicious",
        "What is this?",
        gets=None,
        asked_about="product-4",
    ),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"), device="cpu", question_encoder="shipped"
    )
    with LiveServer(settings) as live:
        yield live.client


# The encoder's weakest kind: roundabout words without any of the prompt's (docs/evaluation.md).
MISSED = {"other words": "gate .46 where .55 is needed; a rephrase mends it"}


def _marked(case: Case) -> Any:
    reason = MISSED.get(case.label)
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    return pytest.param(case, id=case.label, marks=marks)


@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_an_edit_answers_its_question_and_no_other(client: httpx.Client, case: Case) -> None:
    body = {
        "image": _sent(case.picture),
        "prompt": case.prompt,
        "target": case.target,
        "rephrases": list(case.rephrases),
    }
    made = client.post("/edits", json=body)
    assert made.status_code == 201, made.text
    question = {
        "image": _sent(case.asked_about or case.picture),
        "prompt": case.question,
        "explain": True,
    }
    answer = client.post("/generate", json=question).raise_for_status().json()
    base = client.post("/generate", json=question | {"edits": "off"}).raise_for_status().json()
    client.post(f"/admin/edits/{made.json()['id']}/rollback").raise_for_status()
    assert answer["text"] == (case.gets or base["text"]), answer["candidates"]


def _sent(name: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(scope_picture(name)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
