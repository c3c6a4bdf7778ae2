"""What all commands share: configs become objects, errors become messages, and runs resume.

Only this folder and `run.py` import Hydra. May import everything except the commands.
"""
