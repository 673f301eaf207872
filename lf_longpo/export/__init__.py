"""Data sets in the forms that other trainers take."""
