"""From probabilities to a decision."""
