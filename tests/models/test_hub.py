"""Names on the hub are looked up once, before transformers is imported."""

import httpx
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from lf_longpo.errors import UserError
from lf_longpo.models.hub import hub_problem
from lf_longpo.models.tokenizers import load_tokenizer


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A function that simulates what the hub answers: an error, or nothing for a model that it has."""
    asked = []

    def simulate(error=None):
        def model_info(self, name, timeout):
            asked.append(name)
            if error:
                raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        return asked

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return simulate


def test_a_name_that_the_hub_does_not_have(hub):
    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))
    asked = hub(RepositoryNotFoundError("404", response=response))
    expected = (
        "tokenizer: there is no folder acme/lama and no model 'acme/lama' on the hub that you can access; correct the "
        "name, set tokenizer to a folder, or log in"
    )
    with pytest.raises(UserError) as raised:
        load_tokenizer("acme/lama", "tokenizer")
    assert str(raised.value) == expected and asked == ["acme/lama"]


def test_a_hub_that_cannot_be_reached(hub):
    hub(httpx.ConnectError("[Errno -2] Name or service not known"))
    assert hub_problem("acme/lama", "tokenizer") == (
        f"there is no folder acme/lama, and the hub {constants.ENDPOINT} cannot be reached ([Errno -2] Name or service "
        "not known); set tokenizer to a model folder, or connect this machine"
    )


def test_names_that_need_no_look(hub, tmp_path, monkeypatch):
    asked = hub(httpx.ConnectError("no network"))
    (tmp_path / "models--acme--cached").mkdir()
    for name in ("acme/cached", "smollm2-135m", str(tmp_path), "./models/none"):
        assert hub_problem(name, "tokenizer") is None
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    assert hub_problem("acme/lama", "tokenizer") is None and not asked


def test_a_name_that_the_hub_has(hub):
    asked = hub()
    assert hub_problem("acme/lama", "tokenizer") is None and asked == ["acme/lama"]
