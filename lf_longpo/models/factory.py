"""Makes the backend that a model's configuration names."""

from lf_longpo.config import ChatConfig, JudgeModelConfig
from lf_longpo.models.batch_store import BATCHES, BatchStore
from lf_longpo.models.cache import CallCache
from lf_longpo.models.chat import ChatModel
from lf_longpo.models.ledger import Ledger


def make_chat(config: ChatConfig, cache: CallCache, ledger: Ledger) -> ChatModel:
    """Makes the backend that `config` names, without starting it.

    Args:
        config: the model's configuration.
        cache: the run's call cache; the submitted batches are kept in the same folder.
        ledger: the run's ledger.
    """
    if isinstance(config, JudgeModelConfig) and config.backend == "reward_model":
        from lf_longpo.models.reward_model import RewardModel

        return RewardModel(config)
    if config.batch:
        from lf_longpo.models.batch_chat import BatchChat

        return BatchChat(config, BatchStore(cache.sibling(BATCHES)), ledger)
    if config.backend == "openai":
        from lf_longpo.models.openai_chat import OpenAIChat

        return OpenAIChat(config)
    if config.backend == "vllm":
        from lf_longpo.models.vllm_chat import VLLMChat

        return VLLMChat(config)
    from lf_longpo.models.transformers_chat import TransformersChat

    return TransformersChat(config)
