"""A run's folder on disk, finished or not, and sets of pairs by name.

The report, the viewer and the exports read runs through this room. Nothing here may change a run's files, except
registering the pairs of a run as a data set; nothing here makes calls.
"""
