"""From a conversation to P(acceptable | tier): shared, as it is, by serving and training."""
