"""A chat model that needs no key: it answers from a script.

Rules: the reply is a function of the conversation alone. A process that resumes a run finds in the
checkpoint everything that the model needs, as it would with a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.tool import ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What the model says, and which tools it asks for, when the last message contains `hears`."""

    hears: str
    says: str
    calls: tuple[str, ...] = ()


class ScriptModel(BaseChatModel):
    """Says the first line of its script that fits the last message."""

    script: Sequence[Line]

    @property
    def _llm_type(self) -> str:
        return "script"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        heard = str(messages[-1].content)
        line = next((line for line in self.script if line.hears in heard), None)
        if line is None:
            raise ValueError(f"the script has no line for {heard!r}; add one whose `hears` fits")
        calls = [ToolCall(name=name, args={}, id=f"call-{name}") for name in line.calls]
        reply = AIMessage(content=line.says, tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=reply)])
