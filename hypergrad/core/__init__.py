"""Named tensors and what can be done to them: derivatives, structure, operators, exact arithmetic, checks and errors.

Imports nothing else of the package.
"""
