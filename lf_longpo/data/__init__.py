"""The records that move through the project: questions, roll-outs, responses, pairs, review decisions.

They are read and checked here; nothing here calls a model.
"""
