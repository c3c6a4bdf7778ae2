"""Supervised training: any model, loss and data, and problems made of them. May import what `problem` may."""
