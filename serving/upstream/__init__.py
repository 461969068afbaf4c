"""Calls to providers: one attempt, streams and their usage, what may be tried again."""
