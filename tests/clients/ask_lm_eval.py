"""lm-eval: a question about a picture by chat, and log-likelihoods of texts as tokens."""

from __future__ import annotations

import json
import os

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from PIL import Image
from talk import arguments, talk

URL, MODEL, PICTURE = arguments()
chats = LocalChatCompletion(base_url=f"{URL}/chat/completions", model=MODEL, max_images=1)
texts = LocalCompletionsAPI(
    base_url=f"{URL}/completions", model=MODEL, tokenizer=os.environ["TOKENIZER"]
)


def ask(question: str) -> str:
    likelihoods = texts.loglikelihood(
        [Instance("loglikelihood", {}, ("The star is", end), i) for i, end in enumerate(ENDS)]
    )
    assert all(value < 0 for value, _ in likelihoods)
    prompt = json.dumps([{"role": "user", "content": question}])
    options = {"until": [], "max_gen_toks": 32}
    shown = {"visual": [Image.open(PICTURE)]}
    request = Instance("generate_until", {}, (chats_prompt(prompt), options, shown), 0)
    return str(chats.generate_until([request])[0])


def chats_prompt(prompt: str) -> object:
    from lm_eval.models.api_models import JsonChatStr

    return JsonChatStr(prompt)


ENDS = (" blue", " one of three")
talk(ask)
