"""Estimators compared with each other and with retraining: `python -m hypergrad.check`.

`comparison.py` is the entry. A `Bench` compares each estimator with its witness along some `Directions`; the witnesses
come from `central_differences` of the dev loss after `retraining`. May import everything up to `estimator`.
"""
