"""Scores of a model before and after training: four benchmarks behind one protocol, their intervals, and a comparison.

Nothing here trains or makes data. A benchmark brings questions, prompts and scores; it opens no file of the run and
starts no model, which `evaluate` does for all of them. `ask_document` answers single questions and scores nothing.
"""
