"""lf-longpo: long-context preference optimisation for LLaMA-Factory."""

__version__ = "0.1.0"
