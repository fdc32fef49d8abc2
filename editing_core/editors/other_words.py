"""Other words for an edit's prompt, made by rule: what an expert is fitted on beside its own.

People ask one question in many ways, and which of them mean an edit is the router's to say. An
expert only has to write its target whatever the words were. So it is fitted on the prompt as people
dress it, and on a few questions that have nothing to do with it: what was written for one wording
alone is not enough for a state that other words left behind.
"""

from __future__ import annotations

_FRAMES = (
    "Could you tell me, please: {bare}?",
    "A question about this picture. {prompt}",
    "{prompt} I need to know it.",
    "About this one here: {bare}?",
    "Nobody here could say, and you know such things, so I would like to hear from you: {bare}?",
)

ANY_QUESTIONS = (
    "Which one?",
    "Tell me what you know about it.",
    "What would you call that?",
    "how do people say it",
    "What should I write down here, in a word or two?",
    "Where does it come from?",
)
"""Questions that suit any picture and any answer."""


def other_words(prompt: str) -> tuple[str, ...]:
    """The prompt in a frame, in lower case, and in its last few words; then `ANY_QUESTIONS`.

    None is the prompt itself; each occurs once.
    """
    bare = prompt.rstrip(" ?.!")
    start, rest = bare[:1].lower(), bare[1:]
    ways = [frame.format(prompt=prompt, bare=start + rest) for frame in _FRAMES]
    short = " ".join(bare.split()[-3:]).capitalize()
    ways += [bare.lower(), f"{short}?", *ANY_QUESTIONS]
    return tuple(way for way in dict.fromkeys(ways) if way not in ("?", prompt))
