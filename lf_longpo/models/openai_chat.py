"""Chat with any OpenAI-compatible server through the official async client."""

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, UserError
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.openai_client import make_client, plain_errors


class OpenAIChat:
    """A `ChatModel` behind HTTP."""

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self._client = make_client(config.base_url, config.api_key_env, config.timeout, config.max_retries)

    async def start(self) -> int | None:
        """Asks for the list of models: finds a dead server, a wrong key or a wrong name before any work is done."""
        import openai

        config = self._config
        try:
            with plain_errors(config.base_url, config.api_key_env):
                try:
                    listed = await self._client.with_options(max_retries=1, timeout=30).models.list()
                except (openai.NotFoundError, openai.BadRequestError):
                    return None  # this server does not list its models
                # vLLM and SGLang tell the window here; OpenAI does not.
                windows = {model.id: getattr(model, "max_model_len", None) for model in listed.data or []}
        except CallFailed as error:
            raise UserError(f"{error}; start the server or mend base_url") from None
        if windows and config.model not in windows:
            served = ", ".join(sorted(map(str, windows))[:10])
            raise UserError(f"{config.base_url or 'OpenAI'} does not serve {config.model!r}; it serves {served}")
        return windows.get(config.model)

    async def complete(self, request: ChatRequest) -> Completion:
        """One chat completion; see `ChatModel.complete`."""
        from openai import omit

        config, sampling = self._config, request.sampling
        with plain_errors(config.base_url, config.api_key_env):
            reply = await self._client.chat.completions.create(
                model=config.model,
                messages=[{"role": "user", "content": request.prompt}],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                presence_penalty=sampling.presence_penalty,
                max_tokens=sampling.max_new_tokens,
                seed=request.seed if config.send_seed else omit,
            )
            choice = reply.choices[0] if reply.choices else None
            if choice is None or choice.message.content is None:
                refusal = choice.message.refusal if choice else None
                raise CallFailed(f"the server's reply holds no text{f': {refusal}' if refusal else ''}")
            usage = reply.usage
            return Completion(
                text=choice.message.content,
                prompt_tokens=usage.prompt_tokens if usage else 0,
                completion_tokens=usage.completion_tokens if usage else 0,
                finish_reason=choice.finish_reason or "unknown",
            )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()
