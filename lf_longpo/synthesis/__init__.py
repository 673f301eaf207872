"""Long-context questions and answers to train and evaluate on: from published data, from documents, or without data.

Nothing here generates preference pairs or scores a model: the results are files of questions with a data card, or an
SFT data set, and other rooms read them. Every file is written whole or not at all.
"""
