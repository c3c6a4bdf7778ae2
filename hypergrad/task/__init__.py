"""Families of tasks for meta-learning, one file each; imports only from `core` and `data`."""
