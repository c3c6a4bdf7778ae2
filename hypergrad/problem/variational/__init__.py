"""Variational inference as an inner problem: its potentials or networks are learned. May import what `problem` may."""
