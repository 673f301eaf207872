"""`longpo export`: data sets of pairs, or all responses of a run, in the formats of other trainers and on the hub.

An export is written completely or not at all, and it never changes the data set or the run that it reads. A hub token
comes from the environment only and must appear in no file, message or data card.
"""
