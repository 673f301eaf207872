"""What the server of prepared processes does once, so that its processes need not: see prepared.py.

Modules that run as `__main__` (the commands, the training worker, LLaMA-Factory's launcher) are not imported here.
"""

import gc

import deepspeed  # noqa: F401
import gloo_in_order  # noqa: F401
import llamafactory.train.tuner  # noqa: F401
import torch.distributed.run  # noqa: F401
from transformers import AutoModelForImageTextToText, AutoModelForSeq2SeqLM, AutoModelForTextToWaveform

import lf_longpo.cli.evaluation_output
import lf_longpo.cli.generation_output
import lf_longpo.evaluation.benchmarks
import lf_longpo.evaluation.evaluate
import lf_longpo.generation.generate
import lf_longpo.models.openai_chat
import lf_longpo.plugin.check.settings_check
import lf_longpo.plugin.train.dpo_trainer
import lf_longpo.plugin.train.install
import lf_longpo.plugin.train.sft_trainer
import lf_longpo.synthesis.self_instruct_run  # noqa: F401

# LLaMA-Factory looks for a model among all architectures of each kind; each lookup imports a module.
for kind in (AutoModelForImageTextToText, AutoModelForSeq2SeqLM, AutoModelForTextToWaveform):
    list(kind._model_mapping.keys())

# DeepSpeed collects garbage twelve times a start, half a second each with all that is imported.
gc.collect()
gc.freeze()
