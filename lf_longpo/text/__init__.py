"""Text without models: chunks, answers, prompts, and fitting them into a token budget."""
