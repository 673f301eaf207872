"""`longpo train`: LLaMA-Factory's DPO and SFT with the same loss in less memory and time.

The room replaces how log-probabilities are computed. Data, losses, optimizers, logs and checkpoints stay
LLaMA-Factory's. Nothing here may change a loss: a run that cannot be packed exactly trains as plain LLaMA-Factory, and
the reason is printed.
"""
