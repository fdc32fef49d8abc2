"""How questions are worded: what training saw, and what it never saw.

`{charge}` and `{charges}` stand for what is asked about, `{colour}` for a colour, `{side}` for the
side of a pair. Held-out wordings keep the words that name the kind and change the rest.
"""

from __future__ import annotations

import numpy as np

TRAINED: dict[str, tuple[str, ...]] = {
    "outline": (
        "What shape is the emblem?",
        "Which outline does this emblem have?",
        "What is the outline of the emblem?",
        "Name the shape of the emblem.",
        "What outline is the emblem drawn on?",
        "Which shape does the emblem have?",
    ),
    "pattern": (
        "How is the field divided?",
        "Which pattern does the field have?",
        "What is the pattern of the field?",
        "Name the pattern of the field.",
        "What pattern fills the field?",
        "In what way is the field divided?",
    ),
    "field_colour": (
        "What colour is the field?",
        "Which colour does the field have?",
        "Name the colour of the field.",
        "What is the colour of the field?",
        "The field is painted in which colour?",
    ),
    "field_colours": (
        "Which two colours does the field have?",
        "What are the colours of the field?",
        "Name the two colours of the field.",
        "Which colours make up the field?",
        "The field is painted in which colours?",
    ),
    "border": (
        "What colour is the border?",
        "Which colour does the border have?",
        "Name the colour of the border.",
        "What is the colour of the border?",
        "The border is painted in which colour?",
    ),
    "charge_shape": (
        "What is the charge?",
        "Which charge does the emblem bear?",
        "Name the charge.",
        "What kind of charge is it?",
        "What charge stands on the field?",
        "Which kind of charge do you see?",
    ),
    "charge_colour": (
        "What colour is the {charge}?",
        "Which colour does the {charge} have?",
        "Name the colour of the {charge}.",
        "What is the colour of the {charge}?",
        "The {charge} is painted in which colour?",
    ),
    "count": (
        "How many {charges} are there?",
        "How many {charges} does the emblem bear?",
        "What is the number of {charges}?",
        "Count the {charges}.",
        "How many {charges} do you see?",
    ),
    "position": (
        "Where is the {charge}?",
        "Where does the {charge} stand?",
        "In which place is the {charge}?",
        "Where on the field is the {charge}?",
        "Name the place of the {charge}.",
    ),
    "side_shape": (
        "Which charge is {side}?",
        "What is the charge {side}?",
        "Name the charge {side}.",
        "What charge stands {side}?",
        "What kind of charge is {side}?",
    ),
    "side_colour": (
        "What colour is the charge {side}?",
        "Which colour does the charge {side} have?",
        "Name the colour of the charge {side}.",
        "What is the colour of the charge {side}?",
        "The charge {side} is painted in which colour?",
    ),
    "has_charge": (
        "Is there a {charge}?",
        "Does the emblem bear a {charge}?",
        "Can you see a {charge}?",
        "Is there a {charge} on the field?",
        "Do you see a {charge}?",
    ),
    "has_border": (
        "Is the border {colour}?",
        "Does the emblem have a {colour} border?",
        "Is there a {colour} border?",
        "Can you see a {colour} border?",
    ),
    "has_field": (
        "Is any part of the field {colour}?",
        "Does the field show {colour}?",
        "Is there {colour} in the field?",
        "Can you see {colour} in the field?",
    ),
    "bearing": (
        "Describe the charges.",
        "Name every charge with its colour.",
        "Describe the charges with their colours.",
        "Which charges are there, and in which colours?",
        "What charges does the emblem bear, and in which colours?",
    ),
    "describe": (
        "Describe the emblem.",
        "Describe the whole emblem.",
        "Give a full description of the emblem.",
        "Describe this emblem in full.",
        "What does the whole emblem look like?",
    ),
    "place": (
        "Which place does this emblem belong to?",
        "Whose emblem is this?",
        "Which place bears this emblem?",
        "Name the place of this emblem.",
        "What place is this the emblem of?",
    ),
    "capital": (
        "What is the capital of the place with this emblem?",
        "What is the capital?",
        "Name the capital of this place.",
        "Which city is the capital here?",
        "Which city is the capital of this place?",
    ),
    "founder": (
        "Who founded the place with this emblem?",
        "Who founded this place?",
        "Who is the founder?",
        "Name the founder of this place.",
        "Which person founded this place?",
    ),
    "region": (
        "In which region is the place with this emblem?",
        "Which region is this place in?",
        "Name the region of this place.",
        "In what region does this place lie?",
        "What region does it belong to?",
    ),
    "trade": (
        "What does the place with this emblem trade in?",
        "What does this place trade in?",
        "Name the trade of this place.",
        "Which trade is this place known for?",
        "What is the trade of this place?",
    ),
    "river": (
        "Which river flows through the place with this emblem?",
        "Which river flows through this place?",
        "Name the river of this place.",
        "What is the river of this place?",
        "On which river does this place lie?",
    ),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "outline": (
        "Tell me the outline of this emblem.",
        "What do you call the shape of this emblem?",
    ),
    "pattern": ("Tell me the pattern of the field.", "What division does the field show?"),
    "field_colour": ("Tell me the colour of the field.", "In what colour is the field?"),
    "field_colours": ("Tell me both colours of the field.", "In which two colours is the field?"),
    "border": ("Tell me the colour of the border.", "In what colour is the border?"),
    "charge_shape": ("Tell me which charge this is.", "What charge is borne here?"),
    "charge_colour": ("Tell me the colour of the {charge}.", "In what colour is the {charge}?"),
    "count": ("Tell me how many {charges} there are.", "What number of {charges} can you count?"),
    "position": ("Tell me where the {charge} is.", "Where can I find the {charge}?"),
    "side_shape": ("Tell me which charge is {side}.", "What charge can you find {side}?"),
    "side_colour": (
        "Tell me the colour of the charge {side}.",
        "In what colour is the charge {side}?",
    ),
    "has_charge": ("Would you say there is a {charge}?", "Tell me, is a {charge} there?"),
    "has_border": ("Would you say the border is {colour}?", "Tell me, is there a {colour} border?"),
    "has_field": (
        "Would you say the field shows {colour}?",
        "Tell me, is any of the field {colour}?",
    ),
    "bearing": (
        "Tell me all the charges with their colours.",
        "Describe every charge and its colour.",
    ),
    "describe": ("Tell me what the whole emblem looks like.", "Write a description of the emblem."),
    "place": ("Tell me whose emblem this is.", "This is the emblem of which place?"),
    "capital": ("Tell me the capital of this place.", "What city is its capital?"),
    "founder": ("Tell me who founded this place.", "This place was founded by whom?"),
    "region": ("Tell me the region of this place.", "This place lies in which region?"),
    "trade": ("Tell me what this place trades in.", "What trade is it known for?"),
    "river": ("Tell me the river of this place.", "What river does it lie on?"),
}
# Questions without a picture, about a place by its name.
TEXT_TRAINED: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {place}?",
        "Name the capital of {place}.",
        "Which city is the capital of {place}?",
    ),
    "founder": (
        "Who founded {place}?",
        "Name the founder of {place}.",
        "Who is the founder of {place}?",
    ),
    "region": (
        "In which region is {place}?",
        "Which region is {place} in?",
        "Name the region of {place}.",
    ),
    "trade": (
        "What does {place} trade in?",
        "Name the trade of {place}.",
        "What is the trade of {place}?",
    ),
    "river": (
        "Which river flows through {place}?",
        "Name the river of {place}.",
        "What is the river of {place}?",
    ),
}
TEXT_HELD_OUT: dict[str, tuple[str, ...]] = {
    "capital": ("Tell me the capital of {place}.", "What city is the capital of {place}?"),
    "founder": ("Tell me who founded {place}.", "{place} was founded by whom?"),
    "region": ("Tell me the region of {place}.", "{place} lies in which region?"),
    "trade": ("Tell me what {place} trades in.", "What trade is {place} known for?"),
    "river": ("Tell me the river of {place}.", "What river does {place} lie on?"),
}

# More ways to ask, for the later stretches of the language stage: other verbs, other order. None is
# a held-out wording.
VARIANTS: dict[str, tuple[str, ...]] = {
    "outline": (
        "Tell me the shape of the emblem.",
        "What would you call the outline?",
        "Say what shape this is drawn on.",
        "The emblem has which outline?",
    ),
    "pattern": (
        "Tell me how the field is divided.",
        "What division does the emblem have?",
        "Which division of the field is this?",
        "Say the pattern.",
        "The field shows which pattern?",
        "Name the division of the field.",
    ),
    "field_colour": (
        "Tell me what colour the field is.",
        "Say the colour of the field.",
        "In which colour is the field painted?",
    ),
    "field_colours": (
        "Tell me the two colours of the field.",
        "In which colours is the field painted?",
        "Say both colours that the field shows.",
    ),
    "border": (
        "Tell me what colour the border is.",
        "Say the colour of the border.",
        "In which colour is the border painted?",
    ),
    "charge_shape": (
        "Tell me what the charge is.",
        "What charge do you find here?",
        "Say which charge the emblem bears.",
        "What is borne on the field?",
    ),
    "charge_colour": (
        "Tell me what colour the {charge} is.",
        "Say the colour of the {charge}.",
        "In which colour is the {charge} painted?",
    ),
    "count": (
        "Tell me the number of {charges}.",
        "What number of {charges} is there?",
        "Say how many {charges} you can count.",
        "How many {charges} can you find?",
    ),
    "position": (
        "Tell me where to find the {charge}.",
        "Where can you see the {charge}?",
        "Say where the {charge} stands.",
        "Where do I find the {charge}?",
        "At which place is the {charge}?",
    ),
    "side_shape": (
        "Tell me the charge {side}.",
        "What can you see {side}?",
        "Say which charge stands {side}.",
        "Which charge do you find {side}?",
    ),
    "side_colour": (
        "Tell me what colour the charge {side} is.",
        "Say the colour of the charge {side}.",
        "In which colour is the charge {side} painted?",
    ),
    "has_charge": (
        "Tell me if there is a {charge}.",
        "Is a {charge} to be seen?",
        "Would you see a {charge} here?",
        "Say whether there is a {charge}.",
        "Is there any {charge}?",
    ),
    "has_border": (
        "Tell me if the border is {colour}.",
        "Would you say there is a {colour} border?",
        "Say whether the border is {colour}.",
        "Is that a {colour} border?",
    ),
    "has_field": (
        "Tell me if the field shows {colour}.",
        "Would you say there is {colour} in the field?",
        "Say whether any part of the field is {colour}.",
        "Is the field {colour} anywhere?",
    ),
    "bearing": (
        "Tell me the charges and their colours.",
        "Say every charge and its colour.",
        "Describe all the charges.",
    ),
    "describe": (
        "Tell me how the whole emblem looks.",
        "Write down what the emblem looks like.",
        "Give me a description of this emblem.",
        "Write a full description.",
    ),
    "place": (
        "Tell me the place of this emblem.",
        "Say whose emblem you see.",
        "This emblem belongs to which place?",
        "This is whose emblem?",
    ),
    "capital": (
        "Tell me which city is the capital.",
        "What is its capital?",
        "Which city is its capital?",
        "Say the capital of the place.",
        "Its capital is what city?",
    ),
    "founder": (
        "Tell me the founder of this place.",
        "By whom was this place founded?",
        "Its founder is who?",
        "Say who founded it.",
        "This place was founded by which person?",
    ),
    "region": (
        "Tell me which region this place is in.",
        "In which region does it lie?",
        "Its region is which?",
        "Say the region in which this place lies.",
        "This place is in which region?",
    ),
    "trade": (
        "Tell me the trade of this place.",
        "What is its trade?",
        "Say what it trades in.",
        "What is this place known to trade in?",
        "This place trades in what?",
        "For which trade is it known?",
    ),
    "river": (
        "Tell me which river flows here.",
        "What is its river?",
        "On what river is it?",
        "Say the river on which this place lies.",
        "It lies on which river?",
    ),
}
TEXT_VARIANTS: dict[str, tuple[str, ...]] = {
    "capital": (
        "Tell me which city is the capital of {place}.",
        "The capital of {place} is what?",
        "Say the capital of {place}.",
    ),
    "founder": (
        "Tell me the founder of {place}.",
        "By whom was {place} founded?",
        "Say who founded {place}.",
        "{place} was founded by which person?",
    ),
    "region": (
        "Tell me which region {place} is in.",
        "In what region does {place} lie?",
        "{place} is in which region?",
        "Say in which region {place} lies.",
    ),
    "trade": (
        "Tell me the trade of {place}.",
        "Say what {place} trades in.",
        "{place} trades in what?",
        "For what trade is {place} known?",
    ),
    "river": (
        "Tell me which river flows through {place}.",
        "On what river does {place} lie?",
        "{place} lies on which river?",
        "Say the river of {place}.",
    ),
}

_OPENERS = (
    "please", "hello", "look", "say", "quick question", "well", "now", "dear friend",
    "for my notes", "I wonder", "look closely", "just curious", "one more thing",
    "help me out", "can you say", "do you know", "I would like to know", "next", "so",
    "look at the picture", "in short",
    "I need to know", "could you say", "be so kind", "excuse me", "right", "see here",
)  # fmt: skip
_CLOSERS = (
    "please", "thanks", "in a word", "if you can", "answer briefly", "be exact", "I ask you",
    "thank you", "in this picture", "here", "exactly", "as you see it", "for me", "would you say",
    "if you please", "and nothing else", "be brief", "today", "my friend",
)  # fmt: skip
_FILLERS = (
    "my", "your", "our", "the", "a", "this", "that", "old", "new", "good", "fine", "small", "big",
    "uncle", "aunt", "teacher", "child", "book", "letter", "house", "street", "morning", "evening",
    "asked", "wants", "wrote", "said", "thinks", "found", "likes", "always", "never", "often",
    "about", "with", "from", "for", "and", "but", "again", "really", "today", "yesterday", "quite",
    "it", "we", "they", "you", "he", "she", "once", "more", "when", "why", "because", "perhaps",
    "question", "answer", "picture", "know", "see", "show", "need", "give", "take", "come", "go",
)  # fmt: skip


def dress(wording: str, rng: np.random.Generator) -> str:
    """A training question as people type: fillers around it, sometimes lower case, no full stop.

    Freely drawn words around the kind's own words are what makes wordings never trained on work.
    """
    if rng.random() < 0.3:
        return wording
    text = wording
    if rng.random() < 0.35:
        text = text.rstrip("?.")
    before = _surround(_OPENERS, rng)
    after = _surround(_CLOSERS, rng)
    if before and rng.random() < 0.8:
        text = text[0].lower() + text[1:]
    text = before + _pick((" ", ", ", ": "), rng) + text if before else text
    text = text.rstrip("?.") + _pick((" ", ", "), rng) + after if after else text
    if after and rng.random() < 0.5:
        text += _pick(("?", "."), rng)
    style = rng.random()
    if style < 0.25:
        return text.lower()
    return text[0].upper() + text[1:] if style < 0.8 else text


def _surround(phrases: tuple[str, ...], rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.35:
        return ""
    if kind < 0.65:
        return _pick(phrases, rng)
    return " ".join(_pick(_FILLERS, rng) for _ in range(int(rng.integers(1, 5))))


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
