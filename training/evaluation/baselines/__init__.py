"""What a router has to beat, on the same prompts."""
