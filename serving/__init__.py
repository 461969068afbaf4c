"""Everything that answers a request; nothing that trains."""

__version__ = "0.1.0"  # as in pyproject.toml; here because a bento runs without an installed distribution
