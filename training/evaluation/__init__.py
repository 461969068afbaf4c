"""How good a router is, on outcomes it has not seen."""
