"""How good the router is on real outcomes: measured, not tested."""
