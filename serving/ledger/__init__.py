"""What every call cost and saved: events, prices, budgets and reports."""
