"""The record of a logged request and the readers that stream it."""
