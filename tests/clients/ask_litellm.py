"""LiteLLM: its health check, chats, and responses by its own bridge."""

from __future__ import annotations

import litellm
from talk import arguments, data_uri, talk

URL, MODEL, PICTURE = arguments()
TO = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": "none"}


def ask(question: str) -> str:
    content = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": data_uri(PICTURE)}},
    ]
    litellm.completion(**TO, messages=[{"role": "user", "content": "Hello"}], max_tokens=16)
    messages = [{"role": "user", "content": content}]
    whole = litellm.completion(**TO, messages=messages)
    chunks = list(litellm.completion(**TO, messages=messages, stream=True))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    text: str = whole.choices[0].message.content
    assert streamed == text
    parts = [
        {"type": "input_text", "text": question},
        {"type": "input_image", "image_url": data_uri(PICTURE)},
    ]
    response = litellm.responses(**TO, input=[{"role": "user", "content": parts}])
    assert response.output[0].content[0].text == text
    return text


talk(ask)
