"""How a verdict is got out of a judge model, whatever it judges."""
