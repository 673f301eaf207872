"""A run as it lies on disk, finished or not, and sets of pairs by name.

For readers of runs (report, viewer, export); apart from the registered data set, nothing here changes a run.
"""
