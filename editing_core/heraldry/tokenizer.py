"""The embedded model's tokenizer: byte-level BPE over the world's text, with a chat template.

Every byte is a token, so any Unicode text can be a prompt or a target.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from editing_core.heraldry.emblem import emblem_from_seed, stream
from editing_core.heraldry.places import Place, known_places, strangers
from editing_core.heraldry.questions import questions_about, text_questions
from editing_core.heraldry.wordings import dress

VOCABULARY = 1536
PAD, USER, ASSISTANT, STOP, IMAGE = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<image>"
MAX_TOKENS = 512

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}"
    "{% endfor %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{{ '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Learn the merges from the world's own text; the same vocabulary every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=3,
        special_tokens=[PAD, USER, ASSISTANT, STOP, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=STOP,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        model_max_length=MAX_TOKENS,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> Iterator[str]:
    rng = np.random.default_rng([107, 1])
    for seed in range(2500):
        emblem = emblem_from_seed(seed, "train")
        for question in questions_about(emblem, stream("train", seed, 9)):
            wording = question.wordings[int(rng.integers(len(question.wordings)))]
            yield dress(wording, rng)
            yield question.answer
    places: tuple[Place, ...] = known_places() + strangers()
    for place in places:
        for question in text_questions(place, rng, known=True):
            yield from question.wordings
            yield question.answer
