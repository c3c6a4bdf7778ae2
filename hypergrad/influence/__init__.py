"""The influence of each train example on the dev loss: `python -m hypergrad.influence`.

May import everything up to `sensitivity`; the command in `__main__.py` also imports `cli`.
"""
