"""The official OpenAI client, set up once for chat and embeddings, with its errors in words that people can act on."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from lf_longpo.config.providers import OPENAI_URL, is_hosted
from lf_longpo.errors import CallFailed, Refused, TryAgain, UserError, first_line
from lf_longpo.text.differences import whole_letters

if TYPE_CHECKING:
    import httpx
    import openai
    from openai import AsyncOpenAI

# Local servers accept any key, but the client insists on one.
_NO_KEY = "none"

# What providers say in `error.code` (OpenAI, Azure, Zhipu, DeepSeek) when a call can never succeed.
_POLICY_CODES = {"content_filter", "content_policy_violation", "1301"}
# Words of gateways that have no such code for it.
_POLICY_WORDS = re.compile(
    r"moderation|flagged|inappropriate|high risk|safety|content.(policy|filter|management)|sensitive.(content|words|"
    r"information)|敏感|违规",
    re.IGNORECASE,
)
_LENGTH_CODES = {"context_length_exceeded", "string_above_max_length", "1261"}
_CREDIT_CODES = {"insufficient_quota", "billing_hard_limit_reached", "1113"}
_PAYMENT_REQUIRED, _TIMEOUT, _CONFLICT, _TOO_MANY_REQUESTS, _SERVER_ERROR = 402, 408, 409, 429, 500
# Seconds; a server that asks for more is asked again then.
_LONGEST_WAIT = 3600.0
# Characters of a server's message that are told.
_MOST_WORDS = 500
# What a refusal of one prompt's content has where there is no code for it; 403 otherwise is about the key.
_MODERATED = {400, 403, 451}
# What says that a server has too much to do: rate limits, and 503 or 529 (Anthropic) while it is full.
_OVERLOADED = {_TOO_MANY_REQUESTS, 503, 529}


def make_client(base_url: str | None, api_key_env: str, timeout: float, max_retries: int) -> "AsyncOpenAI":
    """A client on the aiohttp transport, without a bound of its own on calls at once.

    Args:
        base_url: the server's address, None for OpenAI's.
        api_key_env: the variable that holds the key.
        timeout: seconds.
        max_retries: how often the client itself repeats calls that met 408, 409, 429, 5xx or a lost connection.

    Raises:
        UserError: the key's variable is not set and the server is a hosted provider's, or base_url is no URL.
    """
    from openai import AsyncOpenAI, DefaultAioHttpClient

    key = os.environ.get(api_key_env)
    if not key and is_hosted(base_url):
        raise UserError(f"the environment variable {api_key_env} is not set; put the API key there, or set base_url")
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UserError(f"base_url {base_url!r} must begin with http:// or https://")
    try:
        return AsyncOpenAI(
            api_key=key or _NO_KEY,
            base_url=base_url,
            timeout=timeout,
            max_retries=max_retries,
            http_client=DefaultAioHttpClient(timeout=timeout, event_hooks={"response": [_settle_credit]}),
        )
    except Exception as error:  # the client's URL parser has errors of its own
        raise UserError(f"base_url {base_url!r} is no address: {first_line(error)}") from None


async def _settle_credit(response: "httpx.Response") -> None:
    """Keeps the client from asking again where a "too many requests" means that there is no credit."""
    if response.status_code == _TOO_MANY_REQUESTS:
        body = (await response.aread()).decode("utf-8", "replace")
        if any(re.search(rf'"{code}"|: *{code}\b', body) for code in _CREDIT_CODES):
            response.headers["x-should-retry"] = "false"


@contextmanager
def plain_errors(base_url: str | None, api_key_env: str) -> Iterator[None]:
    """Turns the client's errors into `UserError` (nothing can work), `CallFailed` (this call is lost) and `TryAgain`.

    Messages carry the server's words, never the request, its headers or the key.
    """
    import aiohttp
    import openai

    server = base_url or OPENAI_URL
    try:
        yield
    except openai.AuthenticationError as error:
        raise UserError(
            f"{server} rejects the key in {api_key_env} ({error.status_code}); set that variable to a valid key"
        ) from None
    except openai.NotFoundError as error:
        raise UserError(f"{server} knows no such model or address (404): {_words(error)}") from None
    except openai.APIConnectionError as error:
        # The aiohttp transport reports a refused connection as a time-out; what it came from tells them apart.
        refusal = next((cause for cause in _causes(error) if isinstance(cause, OSError)), None)
        dropped = any(isinstance(cause, aiohttp.ServerDisconnectedError) for cause in _causes(error))
        late = refusal is None and not dropped and isinstance(error, openai.APITimeoutError)
        if isinstance(refusal, TimeoutError) or late:
            raise TryAgain(f"{server} did not answer in time", overloaded=True) from None
        absent = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in _causes(error))
        raise TryAgain(f"no connection to {server}: {refusal or error}", unreachable=absent) from None
    except openai.APIStatusError as error:
        raise refused(server, error.status_code, str(error.code or ""), _words(error), _wait(error)) from None
    except aiohttp.ClientError as error:  # broken HTTP; its text may hold the request's headers
        raise TryAgain(f"{server} sent what is no HTTP ({type(error).__name__})") from None
    except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # The client hands on whatever came, a web page too; the first use of it fails.
        raise TryAgain(f"{server} sent a reply that cannot be read: {first_line(error)}") from None


def refuse_error(server: str, reply: Any) -> None:
    """Finds the errors that some servers and gateways send with HTTP status 200.

    Args:
        server: its address.
        reply: JSON as plain data, or the client's own object.

    Raises:
        UserError, CallFailed or TryAgain: as `refused` says; nothing where the reply is no error.
    """
    if not isinstance(reply, dict):
        reply = getattr(reply, "model_extra", None) or {}  # what the client has no field for
    choices = reply.get("choices")
    places = [reply, *(choices if isinstance(choices, list) else [])]
    error = next((place["error"] for place in places if isinstance(place, dict) and place.get("error")), None)
    if error is None and reply.get("object") == "error":
        error = reply
    if error is None:
        return
    told = error if isinstance(error, dict) else {"message": error}
    code = str(told.get("code") or told.get("type") or "")
    # Gateways put the status of the server behind them there. Without one, the next try may work.
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else _SERVER_ERROR
    raise refused(server, status, code, str(told.get("message") or error), said="200 with an error")


def refused(
    server: str, status: int, code: str, words: str, after: float = 0.0, said: str = ""
) -> UserError | CallFailed:
    """What an answer other than the asked one means.

    Args:
        server: its address.
        status: of HTTP.
        code: the provider's word for it.
        words: its explanation; the error shows its beginning.
        after: seconds that it asks to wait.
        said: what stands for the status in the message.

    Returns:
        `UserError` (nothing can work), `CallFailed` (this call is lost; `Refused` where that may hold for all calls) or
        `TryAgain`.
    """
    words = whole_letters(words)[:_MOST_WORDS]
    if status == _PAYMENT_REQUIRED or code in _CREDIT_CODES:
        return UserError(f"{server} says that the account has no credit left: {words}; top it up")
    reason = ""
    if code in _POLICY_CODES or (status in _MODERATED and _POLICY_WORDS.search(words)):
        reason = " (refused by its content policy)"
    elif code in _LENGTH_CODES or "maximum context length" in words:
        reason = " (the prompt is too long for it; set context_window beside the model)"
    message = f"{server} answered {said or status}{reason}: {words}"
    if reason:  # another prompt may pass
        return CallFailed(message)
    if status not in (_TIMEOUT, _CONFLICT, _TOO_MANY_REQUESTS, *range(_SERVER_ERROR, 600)):
        return Refused(message)
    return TryAgain(message, after=after, overloaded=status in _OVERLOADED)


def _wait(error: "openai.APIStatusError") -> float:
    """Seconds that the answer's Retry-After asks for, as a number or a date."""
    told = error.response.headers.get("retry-after", "")
    try:
        return min(max(float(told), 0.0), _LONGEST_WAIT)
    except ValueError:
        pass
    try:
        return min(max(parsedate_to_datetime(told).timestamp() - time.time(), 0.0), _LONGEST_WAIT)
    except ValueError:
        return 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _words(error: Exception) -> str:
    """The server's own message, cut short."""
    return whole_letters(str(getattr(error, "message", error)))[:_MOST_WORDS]
