"""The official OpenAI client for chat and embeddings, with its errors as clear messages.

Embedding calls are retried by the client itself. Chat calls are retried in calls.py and not by the client or by
tenacity: each try takes its turn, quota and share of the budget again, may go to another server, and must stop waiting
when the run is interrupted.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import OPENAI_URL, is_hosted
from lf_longpo.config.request_settings import filled_headers
from lf_longpo.errors import CallFailed, Refused, TryAgain, UserError, first_line
from lf_longpo.models.request_parameters import ParameterRefused, refused_parameter
from lf_longpo.text.differences import whole_letters

if TYPE_CHECKING:
    import httpx
    import openai
    from openai import AsyncOpenAI

# Local servers accept any key, but the client requires one.
_NO_KEY = "none"

# Values of `error.code` (OpenAI, Azure, Zhipu, DeepSeek) for calls that can never succeed.
_POLICY_CODES = {"content_filter", "content_policy_violation", "1301"}
# Words of gateways that send no such code.
_POLICY_WORDS = re.compile(
    r"moderation|flagged|inappropriate|high risk|safety|content.(policy|filter|management)|sensitive.(content|words|"
    r"information)|敏感|违规",
    re.IGNORECASE,
)
_LENGTH_CODES = {"context_length_exceeded", "string_above_max_length", "1261"}
_CREDIT_CODES = {"insufficient_quota", "billing_hard_limit_reached", "1113"}
_PAYMENT_REQUIRED, _TIMEOUT, _CONFLICT, _TOO_MANY_REQUESTS, _SERVER_ERROR = 402, 408, 409, 429, 500
# Seconds; a longer Retry-After counts as this.
_LONGEST_WAIT = 3600.0
# Seconds for a look at the address with /v1.
_SECOND_LOOK = 5.0
# Characters of a server's message that are shown.
_MOST_WORDS = 500
# Statuses of a refusal of one prompt's content without a code; other 403s are about the key.
_MODERATED = {400, 403, 451}
# Statuses of an overloaded server: rate limits, and 503 or 529 (Anthropic).
_OVERLOADED = {_TOO_MANY_REQUESTS, 503, 529}


# Values of environment variables that headers name: the text that names each. Servers may quote a header in an error.
_SECRETS: dict[str, str] = {}
# Shorter values are no secrets, and replacing them would make messages unreadable.
_SHORTEST_SECRET = 4


def make_chat_client(config: ChatConfig, base_url: str | None) -> "AsyncOpenAI":
    """Makes the client for chat with one server of a model.

    Raises:
        UserError: as `make_client`, or an environment variable that a header names is not set.
    """
    try:
        headers, secrets = filled_headers(config.extra_headers or {})
    except ValueError as error:
        raise UserError(str(error)) from None
    _SECRETS.update({secret: name for secret, name in secrets.items() if len(secret) >= _SHORTEST_SECRET})
    return make_client(base_url, config.api_key_env, config.timeout, 0, headers, config.api_version)


def make_client(
    base_url: str | None,
    api_key_env: str,
    timeout: float,
    max_retries: int,
    headers: Mapping[str, str] | None = None,
    api_version: str | None = None,
) -> "AsyncOpenAI":
    """Makes a client on the aiohttp transport, without a limit of its own on parallel calls.

    Args:
        base_url: the server's address; None is OpenAI's.
        api_key_env: the environment variable that holds the key.
        timeout: seconds.
        max_retries: how often the client itself retries after 408, 409, 429, 5xx or a lost connection.
        headers: sent with every call.
        api_version: of Azure's API before v1; the client then uses the addresses and the key's header of that API.

    Raises:
        UserError: the key's variable is not set and the server is a hosted provider's, or base_url is not a URL.
    """
    from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

    key = os.environ.get(api_key_env)
    if not key and is_hosted(base_url):
        raise UserError(
            f"the environment variable {api_key_env} is not set; put the API key there, or set base_url to your own "
            "server"
        )
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UserError(f"base_url {base_url!r} must begin with http:// or https://")
    settings: dict[str, Any] = {
        "api_key": key or _NO_KEY,
        "base_url": base_url,
        "timeout": timeout,
        "max_retries": max_retries,
        "default_headers": headers,
    }
    try:
        client = DefaultAioHttpClient(timeout=timeout, event_hooks={"response": [_settle_credit]})
        if api_version:
            return AsyncAzureOpenAI(**settings, http_client=client, api_version=api_version)
        return AsyncOpenAI(**settings, http_client=client)
    except Exception as error:  # the client's URL parser has its own exceptions
        raise UserError(
            f"base_url {base_url!r} is not an address ({first_line(error)}); fix it, as in http://127.0.0.1:8000/v1"
        ) from None


async def refuse_missing_version(client: "AsyncOpenAI", setting: str) -> None:
    """Looks for the cause of a 404: the address may lack /v1.

    Args:
        client: for the address.
        setting: the setting with the address, for the error.

    Raises:
        UserError: the server lists its models under the address with /v1.
    """
    import openai

    url = str(client.base_url).rstrip("/")
    if url.endswith("/v1"):
        return
    try:
        listed = await client.with_options(base_url=f"{url}/v1", max_retries=0, timeout=_SECOND_LOOK).models.list()
        found = isinstance(listed.data, list)
    except openai.AuthenticationError:
        found = True
    except Exception:  # whatever the server sends there, the 404 is reported
        found = False
    if found:
        raise UserError(f"{url} answers 404, and {url}/v1 has the API; add /v1: set {setting} to {url}/v1")


async def _settle_credit(response: "httpx.Response") -> None:
    """Stops the client's retries if "too many requests" means that the account has no credit."""
    if response.status_code == _TOO_MANY_REQUESTS:
        body = (await response.aread()).decode("utf-8", "replace")
        if any(re.search(rf'"{code}"|: *{code}\b', body) for code in _CREDIT_CODES):
            response.headers["x-should-retry"] = "false"


@contextmanager
def plain_errors(base_url: str | None, api_key_env: str) -> Iterator[None]:
    """Turns the client's errors into `UserError` (nothing can work), `CallFailed` (this call is lost) and `TryAgain`.

    Messages quote the server, never the request, its headers or the key.
    """
    import aiohttp
    import openai

    server = base_url or OPENAI_URL
    try:
        yield
    except openai.AuthenticationError as error:
        raise UserError(_key_problem(server, api_key_env, error.status_code)) from None
    except openai.NotFoundError as error:
        raise UserError(
            f"{server} has no such model or address (404): {_words(error)}; fix model or base_url"
        ) from None
    except openai.APIConnectionError as error:
        # The aiohttp transport reports a refused connection as a time-out; the cause shows the difference.
        refusal = next((cause for cause in _causes(error) if isinstance(cause, OSError)), None)
        dropped = any(isinstance(cause, aiohttp.ServerDisconnectedError) for cause in _causes(error))
        late = refusal is None and not dropped and isinstance(error, openai.APITimeoutError)
        if isinstance(refusal, TimeoutError) or late:
            raise TryAgain(f"{server} did not answer in time", overloaded=True) from None
        absent = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in _causes(error))
        raise TryAgain(f"no connection to {server}: {refusal or error}", unreachable=absent) from None
    except openai.APIStatusError as error:
        code, words = str(error.code or ""), _words(error)
        raise refused(server, error.status_code, code, words, _wait(error), parameter=error.param) from None
    except aiohttp.ClientError as error:  # invalid HTTP; its text may hold the request's headers
        raise TryAgain(f"{server} sent an invalid HTTP response ({type(error).__name__})") from None
    except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # The client accepts any reply, even a web page; its first use fails.
        raise TryAgain(f"{server} sent a reply that cannot be read: {first_line(error)}") from None


def refuse_error(server: str, reply: Any) -> None:
    """Raises errors that some servers and gateways send with HTTP status 200.

    Args:
        server: its address.
        reply: JSON as plain data, or an object of the client.

    Raises:
        UserError, CallFailed or TryAgain: the reply is an error; see `refused`.
    """
    if not isinstance(reply, dict):
        reply = getattr(reply, "model_extra", None) or {}  # keys that the client has no field for
    choices = reply.get("choices")
    parts = [reply, *(choices if isinstance(choices, list) else [])]
    error = next((part["error"] for part in parts if isinstance(part, dict) and part.get("error")), None)
    if error is None and reply.get("object") == "error":
        error = reply
    if error is None:
        return
    fields = error if isinstance(error, dict) else {"message": error}
    code = str(fields.get("code") or fields.get("type") or "")
    # Gateways put the HTTP status of the upstream server there. Without one, the next try may work.
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else _SERVER_ERROR
    words = str(fields.get("message") or error)
    raise refused(server, status, code, words, said="200 with an error", parameter=fields.get("param"))


def refused(
    server: str, status: int, code: str, words: str, after: float = 0.0, said: str = "", parameter: object = None
) -> UserError | CallFailed:
    """The error for a reply that is not what was requested.

    Args:
        server: its address.
        status: HTTP status.
        code: the provider's error code.
        words: the provider's message; the error shows its beginning.
        after: seconds that the server asks to wait.
        said: what the message shows instead of the status.
        parameter: the parameter that the answer names as its reason, if any.

    Returns:
        `UserError` (nothing can work), `CallFailed` (this call is lost; `Refused` where that may hold for all calls,
        `ParameterRefused` where it is about a parameter) or `TryAgain`.
    """
    words = _shown(words)
    if status == _PAYMENT_REQUIRED or code in _CREDIT_CODES:
        return UserError(f"{server} reports that the account has no credit left: {words}; top it up")
    reason = ""
    if code in _POLICY_CODES or (status in _MODERATED and _POLICY_WORDS.search(words)):
        reason = " (refused by its content policy)"
    elif code in _LENGTH_CODES or "maximum context length" in words:
        reason = " (the prompt is too long; set context_window next to model)"
    message = f"{server} answered {said or status}{reason}: {words}"
    if reason:  # another prompt may pass
        return CallFailed(message)
    if status not in (_TIMEOUT, _CONFLICT, _TOO_MANY_REQUESTS, *range(_SERVER_ERROR, 600)):
        unsupported = refused_parameter(code, parameter, words)
        return ParameterRefused(message, unsupported) if unsupported else Refused(message)
    return TryAgain(message, after=after, overloaded=status in _OVERLOADED)


def key_hint(api_key_env: str) -> str:
    """The key that a message asks to check: its variable, and whether that is unset."""
    unset = "" if os.environ.get(api_key_env) else f" (the environment variable {api_key_env} is not set)"
    return f"the key in {api_key_env}{unset}"


def _key_problem(server: str, api_key_env: str, status: int) -> str:
    if not os.environ.get(api_key_env):
        return (
            f"{server} needs a key ({status}) and the environment variable {api_key_env} is not set; put the key there "
            "or set api_key_env to the variable that holds it"
        )
    return f"{server} rejects the key in {api_key_env} ({status}); set that variable to a valid key"


def _wait(error: "openai.APIStatusError") -> float:
    """Seconds that the reply's Retry-After asks to wait; it holds a number or a date."""
    header = error.response.headers.get("retry-after", "")
    try:
        return min(max(float(header), 0.0), _LONGEST_WAIT)
    except ValueError:
        pass
    try:
        return min(max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0), _LONGEST_WAIT)
    except ValueError:
        return 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _words(error: Exception) -> str:
    """The server's own message, cut short."""
    return _shown(str(getattr(error, "message", error)))


def _shown(words: str) -> str:
    """The beginning of a server's message, with the names of environment variables instead of their values."""
    for secret, name in _SECRETS.items():
        words = words.replace(secret, name)
    return whole_letters(words)[:_MOST_WORDS]
