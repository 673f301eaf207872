"""Prints how long scripts/quickstart.sh will take, from the speed of the embedded model on this machine."""

import os
import sys
import time

# The work of a run, fitted to the times of whole runs: tokens that the embedded model would read in the same time, and
# starts of commands, which load the libraries again.
TOKENS = {"longmab": 80_000, "longreward": 150_000}
STARTS = 5


def main(method: str) -> None:
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    began = time.monotonic()
    import torch
    from transformers import AutoModelForCausalLM

    from lf_longpo.models.embedded import model_path

    model = AutoModelForCausalLM.from_pretrained(model_path("smollm2-135m"), dtype=torch.float32)
    start = time.monotonic() - began
    with torch.inference_mode():
        ids = torch.randint(1000, 2000, (1, 256))
        model(ids, logits_to_keep=1)
        began = time.monotonic()
        for _ in range(4):
            model(ids, logits_to_keep=1)
    speed = 4 * ids.shape[1] / (time.monotonic() - began)
    minutes = (STARTS * 2 * start + TOKENS[method] / speed) / 60
    print(
        f"This takes about {minutes:.0f} minutes on this machine (measured: the embedded model loads in {start:.0f} s, "
        f"then reads {speed:,.0f} tokens a second)."
    )


if __name__ == "__main__":
    main(sys.argv[1])
