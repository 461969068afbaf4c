"""Other clients than OpenAI's own, asked the same through the service and straight at the provider.

python -m tests.soak.clients THROUGH STRAIGHT

Run in an environment of its own that has langchain-openai and litellm, which are no dependencies of the project.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import litellm
import openai
from langchain_core.messages import AIMessage, BaseMessageChunk
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

MODEL: Final = "small"
QUESTION: Final = "Is the invoice due?"
USES_TOOL: Final = "use look_up for 7"
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "finds an invoice",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    },
}


class Bill(BaseModel):
    """What an invoice says."""

    number: int
    paid: bool


def langchain(url: str, **changes: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": MODEL, "base_url": url, "api_key": "any", "max_retries": 0, **changes})


def said(answer: AIMessage | BaseMessageChunk) -> object:
    tokens = getattr(answer, "usage_metadata", None) or {}
    return answer.content, getattr(answer, "tool_calls", None), tokens.get("output_tokens")


def langchain_whole(url: str) -> object:
    return said(langchain(url).invoke(QUESTION))


def langchain_stream(url: str) -> object:
    return [chunk.content for chunk in langchain(url).stream(QUESTION)]


def langchain_stream_with_usage(url: str) -> object:
    whole = None
    for chunk in langchain(url, stream_usage=True).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return said(whole)


def langchain_tools(url: str) -> object:
    return [call["args"] for call in langchain(url).bind_tools([TOOL]).invoke(USES_TOOL).tool_calls]


def langchain_structured(url: str) -> object:
    return langchain(url).with_structured_output(Bill, method="json_schema").invoke(QUESTION)


def langchain_async(url: str) -> object:
    async def both() -> object:
        model = langchain(url)
        return said(await model.ainvoke(QUESTION)), [chunk.content async for chunk in model.astream(QUESTION)]

    return asyncio.run(both())


def langchain_responses(url: str) -> object:
    return langchain(url, use_responses_api=True).invoke(QUESTION).text


def langchain_embeddings(url: str) -> object:
    embeddings = OpenAIEmbeddings(
        model="other",
        base_url=url,
        api_key="any",
        check_embedding_ctx_length=False,  # type: ignore[arg-type]
    )
    return embeddings.embed_documents(["an invoice", "a receipt"])


def langchain_error(url: str) -> object:
    try:
        langchain(url, temperature=3).invoke(QUESTION)
    except openai.BadRequestError as error:
        return type(error).__name__, error.status_code
    raise AssertionError("nothing was raised")


def complete(url: str, **changes: Any) -> Any:
    messages = [{"role": "user", "content": QUESTION}]
    told = {"model": f"openai/{MODEL}", "messages": messages, "api_base": url, "api_key": "any", "num_retries": 0}
    return litellm.completion(**{**told, **changes})


def litellm_whole(url: str) -> object:
    answer = complete(url)
    return answer.choices[0].message.content, answer.usage.completion_tokens


def litellm_stream(url: str) -> object:
    chunks = list(complete(url, stream=True, stream_options={"include_usage": True}))
    whole = litellm.stream_chunk_builder(chunks)
    assert whole is not None
    return whole.choices[0].message.content, whole.usage.completion_tokens  # type: ignore[union-attr,attr-defined]


def litellm_tools(url: str) -> object:
    messages = [{"role": "user", "content": USES_TOOL}]
    (call,) = complete(url, messages=messages, tools=[TOOL]).choices[0].message.tool_calls
    return call.function.name, call.function.arguments


def litellm_structured(url: str) -> object:
    return Bill.model_validate_json(complete(url, response_format=Bill).choices[0].message.content)


def litellm_async(url: str) -> object:
    async def whole() -> object:
        messages = [{"role": "user", "content": QUESTION}]
        found = await litellm.acompletion(f"openai/{MODEL}", messages, api_base=url, api_key="any")
        return found.choices[0].message.content  # type: ignore[union-attr]

    return asyncio.run(whole())


def litellm_error(url: str) -> object:
    try:
        complete(url, temperature=3)
    except litellm.BadRequestError as error:
        return type(error).__name__, error.status_code
    raise AssertionError("nothing was raised")


def routed(url: str) -> None:
    """`auto`, which a provider does not know: any model of the ladder answers."""
    assert langchain(url, model="auto").invoke(QUESTION).response_metadata["model_name"] != "auto"
    assert complete(url, model="openai/auto").model != "auto"


ASKED: Final[Mapping[str, Callable[[str], object]]] = {
    one.__name__: one
    for one in (
        langchain_whole, langchain_stream, langchain_stream_with_usage, langchain_tools, langchain_structured,
        langchain_async, langchain_responses, langchain_embeddings, langchain_error, litellm_whole, litellm_stream,
        litellm_tools, litellm_structured, litellm_async, litellm_error,
    )
}  # fmt: skip


def main() -> None:
    """Say of each whether it is the same both ways; exit status 1 where one is not."""
    through, straight = sys.argv[1:]
    wrong = 0
    for name, ask in ASKED.items():
        found, expected = ask(through), ask(straight)
        wrong += found != expected
        print(f"{name}: " + ("the same" if found == expected else f"{found!r} instead of {expected!r}"))
    routed(through)
    print("auto: answered by a model of the ladder")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
