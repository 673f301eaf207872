"""How a judge model is asked for a verdict and how its reply is read.

Nothing here knows a method or a benchmark: prompts, scales and what happens with a verdict belong to the callers.
"""
