"""Outcomes of logged answers → acceptable per tier."""
