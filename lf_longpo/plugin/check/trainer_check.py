"""The trainer that `longpo train` would use for a recipe."""

from copy import deepcopy
from typing import TYPE_CHECKING

from lf_longpo.plugin.check.template import Encoding
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.train.trainer_choice import RunFacts, reason_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def reason_for_plain(config: "PretrainedConfig", run: Arguments, encoding: Encoding | None) -> str | None:
    """Why `longpo train` would train as plain LLaMA-Factory; None if it accelerates the run.

    Args:
        config: the model's, as it was loaded.
        run: the recipe.
        encoding: the recipe's tokenizer and template, if they can be loaded.

    Raises:
        ValueError: the model is not a causal language model.
        OSError: the model needs a kernel from the hub, and the hub cannot be reached.
    """
    import torch
    from llamafactory.model.model_utils.attention import configure_attn_implementation
    from llamafactory.model.model_utils.moe import configure_moe
    from transformers import AutoModelForCausalLM

    # LLaMA-Factory puts the recipe's settings into the configuration and the arguments.
    config, model_args = deepcopy(config), deepcopy(run.model)
    configure_attn_implementation(config, model_args)
    configure_moe(config, model_args, run.training.do_train)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=model_args.trust_remote_code)
    return reason_of(
        RunFacts(
            model=model,
            training=run.training,
            tuning=run.finetuning,
            has_data=bool(run.data.dataset or run.data.tokenized_path),
            streamed=run.data.streaming,
            multimodal=encoding is not None and encoding.processor is not None,
            packed=bool(run.data.packing),
            padding_counts=not run.data.ignore_pad_token_for_loss,
        )
    )
