"""The private names of torch that this library needs: all of them, and nowhere else.

Each says what it is for, and what to use should torch lose it; tests/core/test_torch_internals.py tries what is needed
of each, and prints that when it fails. `inductor` imports slowly, so functions import it.

Imports nothing else of the package.
"""
