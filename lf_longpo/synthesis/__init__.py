"""Making long-context questions."""
