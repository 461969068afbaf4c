"""The ledger in one SQLite file, shared by the workers of one machine."""
