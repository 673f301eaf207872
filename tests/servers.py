"""Stubs that behave as particular servers do: their paths, keys, headers, refusals, and where they put thoughts.

with ServerStub(judged, **SERVERS["deepseek"], thought=lambda prompt: "Is it [[2]]?") as stub: ...
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from stub import KEY, Stub

SERVERS: dict[str, dict[str, Any]] = {
    "azure": {"path": "/openai/v1"},
    "azure before v1": {"path": "/openai", "api_version": "2024-10-21", "key_header": "api-key"},
    "openrouter": {"path": "/api/v1", "thoughts_in": "reasoning"},
    "deepseek": {"thoughts_in": "reasoning_content", "refuses": ("logprobs",)},
    "vllm": {"thoughts_in": "reasoning"},
    "vllm before 0.12": {"thoughts_in": "reasoning_content"},
    "no reasoning parser": {"thoughts_in": "marked"},
    "template opens the thought": {"thoughts_in": "opened"},
}


class ServerStub(Stub):
    """A server with particular ways.

    Args:
        answer: as for `Stub`.
        path: path of the API.
        api_version: the version that each call must name, as in Azure's API before v1; calls then name the model in
            their path.
        key_header: `Authorization` (with `Bearer`) or `api-key`.
        needs: headers that each call must have.
        thought: the thought about a prompt; None for a model that does not think. `chat_template_kwargs:
            {enable_thinking: false}` switches it off.
        thoughts_in: where thoughts are: a field of the message (`reasoning_content`, `reasoning`), in the content
            between `<think>` and `</think>` (`marked`), or in the content with `</think>` only (`opened`).
        refuses: parameters that it refuses.
        limits: whether it cuts thought and answer, together, after max_tokens words.
    """

    def __init__(
        self,
        *args,
        path: str = "/v1",
        api_version: str | None = None,
        key_header: str = "Authorization",
        needs: Mapping[str, str] | None = None,
        thought: Callable[[str], str] | None = None,
        thoughts_in: str = "marked",
        refuses: tuple[str, ...] = (),
        limits: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.path = path
        self.bodies: list[dict] = []
        """Bodies of the chat calls, refused ones too."""
        self.headers: list[Mapping[str, str]] = []
        self._api_version = api_version
        self._key_header = key_header
        self._needs = needs or {}
        self._thought = thought
        self._thoughts_in = thoughts_in
        self._refuses = refuses
        self._limits = limits
        self.fail = self._refuse

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post(f"{self.path}/deployments/{{name}}/chat/completions", self._chat)

    def reply_to(self, body: dict) -> dict:
        reply = super().reply_to(body)
        template = body.get("chat_template_kwargs", {})
        begun = body.get("continue_final_message")
        if self._thought and not begun and template.get("enable_thinking", True):
            prompt = next(message["content"] for message in body["messages"] if message["role"] == "user")
            limit = body.get("max_tokens", body.get("max_completion_tokens")) if self._limits else None
            self._think(reply, self._thought(prompt), limit)
        return reply

    def _think(self, reply: dict, thought: str, limit: int | None) -> None:
        [choice] = reply["choices"]
        message, usage = choice["message"], reply["usage"]
        answer = message["content"]
        words = thought.split(), answer.split()
        ended = limit is None or len(words[0]) < limit
        if limit is not None and len(words[0]) + len(words[1]) > limit:
            choice["finish_reason"] = "length"
            thought = thought if ended else " ".join(words[0][:limit])
            answer = " ".join(words[1][: limit - len(words[0])]) if ended else ""
        if self._thoughts_in in ("marked", "opened"):
            opening = "<think>\n" if self._thoughts_in == "marked" else ""
            message["content"] = f"{opening}{thought}" + (f"\n</think>\n\n{answer}" if ended else "")
        else:
            message |= {self._thoughts_in: thought, "content": answer or None}
        spent = min(len(words[0]), limit or len(words[0]))
        usage["completion_tokens"] = spent + len(answer.split())
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        usage["completion_tokens_details"] = {"reasoning_tokens": spent}

    def _rejects(self, request: web.Request) -> web.Response | None:
        self.headers.append(request.headers.copy())
        if self._key_header == "Authorization":
            rejection = super()._rejects(request)
        else:
            known = request.headers.get(self._key_header) == KEY
            rejection = None if known else web.json_response({"error": {"message": "bad key"}}, status=401)
        if rejection is None and self._api_version:
            by_deployment = "name" in request.match_info or not request.path.endswith("/chat/completions")
            if not by_deployment or request.query.get("api-version") != self._api_version:
                rejection = web.json_response({"error": {"code": "404", "message": "Resource not found"}}, status=404)
        for name, value in self._needs.items():
            if rejection is None and request.headers.get(name) != value:
                message = f"header {name} is wrong: {request.headers.get(name)}"
                rejection = web.json_response({"error": {"message": message}}, status=400)
        return rejection

    def _refuse(self, body: dict) -> web.Response | None:
        self.bodies.append(body)
        for name in self._refuses:
            if name in body:
                message = f"This model does not support {name}."
                return web.json_response({"error": {"message": message, "code": "invalid_request_error"}}, status=400)
        return None
