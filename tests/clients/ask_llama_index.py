"""LlamaIndex's OpenAILike: chats about a picture, and texts, which are its default."""

from __future__ import annotations

from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike
from talk import arguments, talk

URL, MODEL, PICTURE = arguments()
TO = {"api_base": URL, "api_key": "none", "model": MODEL}
chats = OpenAILike(**TO, is_chat_model=True)
texts = OpenAILike(**TO, max_tokens=4)


def ask(question: str) -> str:
    message = ChatMessage(role="user", blocks=[TextBlock(text=question), ImageBlock(path=PICTURE)])
    assert texts.complete("The colour of the star is").text is not None
    return str(chats.chat([message]).message.content)


talk(ask)
