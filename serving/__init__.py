"""Everything that answers a request; nothing that trains."""
