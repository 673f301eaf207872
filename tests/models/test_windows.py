"""Where the context window of a model comes from."""

import json

import pytest
from stub import MODEL

from lf_longpo.config import ChatConfig
from lf_longpo.errors import UserError
from lf_longpo.models.cache import CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.factory import make_chat
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import load_tokenizer


@pytest.fixture
def started(stub):
    """A function that starts a model whose server reports no window, and returns its window."""

    async def start(model, tokenizer, **settings):
        stub.models_text = json.dumps({"object": "list", "data": [{"id": model}]})
        config = ChatConfig(model=model, base_url=stub.base_url, api_key_env="STUB_KEY", **settings)
        cache, ledger = CallCache(None), Ledger()
        calls = Calls(make_chat(config, cache, ledger), config, tokenizer, cache, ledger, 1, section="judge")
        try:
            await calls.start()
        finally:
            await calls.close()
        return calls.window

    return start


async def test_a_window_never_comes_from_the_tokenizer_of_another_model(started, tokenizer):
    assert tokenizer.model_max_length == 8192
    with pytest.raises(UserError) as raised:
        await started(MODEL, tokenizer)
    assert str(raised.value) == (
        f"judge: the context window of {MODEL!r} is unknown, because the server does not report it; set "
        "judge.context_window to the most tokens of prompt and reply together"
    )
    assert await started(MODEL, tokenizer, context_window=500) == 500


async def test_a_model_s_own_tokenizer_knows_its_window(started):
    assert await started("smollm2-135m", load_tokenizer("smollm2-135m", "tokenizer")) == 8192
