"""Peers, each in an interpreter of its own, which has no hypergrad: nothing here may import it."""
