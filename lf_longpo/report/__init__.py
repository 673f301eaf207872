"""What a run made, as a page to look at."""
