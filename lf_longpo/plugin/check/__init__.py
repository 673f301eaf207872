"""`longpo check`: what would go wrong, or silently ruin, a training run, told before it costs GPU hours."""
