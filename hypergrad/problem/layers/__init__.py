"""Layers that solve an optimisation problem, as inner problems. May import what `problem` may."""
