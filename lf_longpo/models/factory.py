"""Which backend a model's configuration names."""

from lf_longpo.config import ChatConfig
from lf_longpo.models.batch_store import BATCHES, BatchStore
from lf_longpo.models.cache import CallCache
from lf_longpo.models.chat import ChatModel
from lf_longpo.models.ledger import Ledger


def make_chat(config: ChatConfig, cache: CallCache, ledger: Ledger) -> ChatModel:
    """The backend that `config` names, not started yet.

    Args:
        config: the model's.
        cache: what is handed in to be answered later is remembered beside it.
        ledger: of the run.
    """
    if config.batch:
        from lf_longpo.models.batch_chat import BatchChat

        return BatchChat(config, BatchStore(cache.beside(BATCHES)), ledger)
    if config.backend == "openai":
        from lf_longpo.models.openai_chat import OpenAIChat

        return OpenAIChat(config)
    if config.backend == "vllm":
        from lf_longpo.models.vllm_chat import VLLMChat

        return VLLMChat(config)
    from lf_longpo.models.transformers_chat import TransformersChat

    return TransformersChat(config)
