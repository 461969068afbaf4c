"""What a client sees, one file per resource."""
