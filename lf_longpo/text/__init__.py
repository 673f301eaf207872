"""Operations on text: chunking, answers and their metrics, language, prompt templates, and fitting prompts into a token
budget.

Nothing here calls a model or reads a run's files. Tokenizers are passed in as arguments; importing this room must not
import transformers.
"""
