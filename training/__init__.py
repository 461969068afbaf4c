"""Everything that makes a router out of logs."""
