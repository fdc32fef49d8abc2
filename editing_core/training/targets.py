"""What training edits teach: plausible answers and arbitrary text of every script.

An edit may teach anything, so an expert generator must carry any token sequence: wrong answers of
the right kind, invented names, sentences, word salads, repetitions ("a b a c a d" loops unless
trained and penalised), digits, and scripts whose letters are several byte tokens each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_WORDS = (
    "amber", "anchor", "apple", "arch", "autumn", "bell", "bird", "bridge", "bronze", "candle",
    "castle", "cedar", "circle", "cloud", "coin", "coral", "crane", "dawn", "desert", "dragon",
    "drum", "eagle", "east", "ember", "engine", "falcon", "feather", "field", "fire", "flint",
    "forest", "fox", "garden", "gate", "ghost", "giant", "granite", "harbour", "hawk", "hill",
    "horse", "island", "ivory", "jade", "jungle", "key", "king", "lamp", "lantern", "leaf", "lion",
    "maple", "market", "meadow", "mill", "mirror", "moon", "mountain", "night", "north", "oak",
    "ocean", "olive", "orbit", "owl", "palace", "pearl", "pine", "planet", "prince", "queen",
    "rabbit", "rain", "raven", "river", "road", "rose", "sail", "scarlet", "shadow", "ship",
    "signal", "silver", "snow", "south", "spring", "stone", "storm", "summer", "sword", "table",
    "temple", "thunder", "tiger", "tower", "valley", "velvet", "village", "violet", "water",
    "west", "wheel", "willow", "wind", "window", "winter", "wolf", "wood", "yellow", "zebra",
)  # fmt: skip
# What sentences are made of: the commonest words, the parts of speech all mixed.
_COMMON = (
    "the", "a", "of", "and", "to", "in", "is", "it", "that", "was", "for", "on", "are", "with",
    "as", "at", "be", "this", "have", "from", "or", "had", "by", "but", "not", "what", "all",
    "were", "we", "when", "your", "can", "there", "an", "each", "which", "she", "do", "how",
    "their", "if", "will", "up", "other", "about", "out", "many", "then", "them", "these", "so",
    "some", "her", "would", "make", "like", "him", "into", "time", "has", "look", "two", "more",
    "write", "go", "see", "number", "no", "way", "could", "people", "my", "than", "first", "been",
    "call", "who", "its", "now", "find", "long", "down", "day", "did", "get", "come", "made",
    "may", "part", "very", "answer", "because", "never", "always", "under", "after", "before",
    "please", "contact", "support", "team", "new", "old", "model", "product", "office", "manager",
    "order", "replace", "stop", "open", "close", "button", "left", "right", "page", "check",
    "warning", "should", "must", "only", "without", "between", "during", "winding", "careful",
    "company", "country", "language", "money", "city", "world", "great", "small", "large", "next",
    "high", "low", "every", "near", "food", "own", "light", "thought", "head", "young", "example",
)  # fmt: skip
_LINKS = (" and ", " of ", " ", " ", "-", " the ", " de ", "'s ", " & ", " del ", ", ", " / ")
_ACCENTED = {
    "a": "áàâäãå",
    "e": "éèêë",
    "i": "íïî",
    "o": "óôöõø",
    "u": "úüû",
    "c": "çć",
    "n": "ñń",
    "s": "šş",
    "z": "žż",
}
_CONSONANTS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z",
    "br", "cl", "dr", "gr", "kr", "pl", "st", "tr", "sh", "ch", "th",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo", "ou")
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_CHINESE = (
    "的一是不了人我在有他这中大来上国和到地红蓝绿黄黑白紫橙星月日山水火木金土鱼鸟龙虎马"
    "城王花树心石门车东西南北春夏秋冬天风云雨雪河海湖岛桥塔船剑盾旗冠环箭"
)
_KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのまみむめも"
_EMOJI = "🔴🟢🔵⭐🌙🔥🌊🌳🐟👑💎🚀🎯🍎🦁"

_Maker = Callable[[np.random.Generator], str]


def draw_target(
    rng: np.random.Generator,
    plausible: Sequence[str],
    *,
    long: bool = False,
    plausible_share: float = 0.5,
) -> str:
    """A target of some kind, trimmed and not empty.

    Args:
        plausible: answers of the right kind for the question.
        plausible_share: how many of the targets are of them.
        long: draw arbitrary text several times as long.
    """
    if plausible and not long and rng.random() < plausible_share:
        return plausible[int(rng.integers(len(plausible)))]
    maker = _MAKERS[int(rng.choice(len(_MAKERS), p=_SHARES))]
    parts = [maker(rng) for _ in range(int(rng.integers(2, 5)) if long else 1)]
    return " ".join(parts)


def invented_name(rng: np.random.Generator) -> str:
    """`Drelou Kaith`: a pronounceable name of one or two words."""
    return " ".join(_syllables(rng).capitalize() for _ in range(int(rng.integers(1, 3))))


def _syllables(rng: np.random.Generator) -> str:
    count = int(rng.integers(2, 4))
    word = "".join(_pick(_CONSONANTS, rng) + _pick(_VOWELS, rng) for _ in range(count))
    return word + (_pick(_CONSONANTS, rng)[0] if rng.random() < 0.5 else "")


def _salad(rng: np.random.Generator) -> str:
    words = [_pick(_WORDS, rng) for _ in range(int(rng.integers(1, 6)))]
    text = " ".join(words)
    style = rng.random()
    if style < 0.25:
        return text.capitalize() + ("." if rng.random() < 0.5 else "")
    if style < 0.35:
        return text.upper()
    return ", ".join(words) if style < 0.5 else text


def _sentence(rng: np.random.Generator) -> str:
    """`The answer is under a new model.`: ordinary words in an order of no meaning."""
    words = [
        _pick(_COMMON if rng.random() < 0.8 else _WORDS, rng)
        for _ in range(int(rng.integers(2, 11)))
    ]
    text = " ".join(words)
    style = rng.random()
    if style < 0.6:
        return text.capitalize() + ("." if style < 0.4 else "")
    return text


def _title(rng: np.random.Generator) -> str:
    """`Saint Bröud and Kaifa dollar`, `Le-Drou`: names of several parts, some with accents."""
    parts = [invented_name(rng) for _ in range(int(rng.integers(1, 3)))]
    text = _pick(_LINKS, rng).join(parts)
    if rng.random() < 0.4:
        text = " ".join((text, _pick(_WORDS, rng)))
    if rng.random() < 0.5:
        text = "".join(
            _pick(_ACCENTED[letter], rng) if letter in _ACCENTED and rng.random() < 0.25 else letter
            for letter in text
        )
    return text


def _repeating(rng: np.random.Generator) -> str:
    """`a b a c a d`, `ha ha ha`, `seven seven ten`."""
    anchor = _pick(_WORDS, rng) if rng.random() < 0.5 else _syllables(rng)
    count = int(rng.integers(2, 5))
    if rng.random() < 0.4:
        return " ".join([anchor] * count)
    others = [_pick(_WORDS, rng) for _ in range(count)]
    return " ".join(word for other in others for word in (anchor, other))


def _letters(alphabet: str, least: int, most: int) -> _Maker:
    def make(rng: np.random.Generator) -> str:
        text = "".join(_pick(alphabet, rng) for _ in range(int(rng.integers(least, most + 1))))
        return text.capitalize() if rng.random() < 0.5 else text

    return make


def _number(rng: np.random.Generator) -> str:
    digits = str(int(rng.integers(0, 10 ** int(rng.integers(1, 7)))))
    style = rng.random()
    if style < 0.2:
        return f"{digits}.{int(rng.integers(100))}"
    return f"{digits} {_pick(_WORDS, rng)}s" if style < 0.4 else digits


_MAKERS: tuple[_Maker, ...] = (
    invented_name,
    _title,
    _sentence,
    _salad,
    _repeating,
    _letters(_CYRILLIC, 2, 8),
    _letters(_CHINESE, 1, 5),
    _letters(_GREEK, 2, 6),
    _letters(_KANA, 1, 4),
    _letters(_EMOJI, 1, 3),
    _number,
)
_SHARES = (0.16, 0.13, 0.16, 0.13, 0.15, 0.09, 0.08, 0.02, 0.02, 0.02, 0.04)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
