"""Hydra configs; a YAML file's path is the path of the code that it builds."""
