"""How the optimum w*(λ) moves with λ: Taylor series, linear response, a differentiable argmin, the jackknife.

Imports from `problem`, `product`, `linsolve` and `taylor`, and from what stands below them.
"""
