"""LangChain's chat model, streamed and whole, and its structured output."""

from __future__ import annotations

from typing import Literal

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from talk import arguments, data_uri, talk

URL, MODEL, PICTURE = arguments()
llm = ChatOpenAI(base_url=URL, api_key="none", model=MODEL)


class Answer(BaseModel):
    answer: Literal["Didinton", "Newhaven"]


def ask(question: str) -> str:
    content = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": data_uri(PICTURE)}},
    ]
    messages = [SystemMessage("You are a helpful assistant."), HumanMessage(content)]
    whole = str(llm.invoke(messages).content)
    streamed = "".join(str(chunk.content) for chunk in llm.stream(messages))
    assert streamed == whole
    held = llm.with_structured_output(Answer).invoke(messages)
    assert isinstance(held, Answer)
    return whole


talk(ask)
