"""Decisions only: no I/O, no clock of its own. (state, event) -> commands."""
