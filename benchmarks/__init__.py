"""Speed and memory against what one would write by hand: `python -m benchmarks.implicit`, `… benchmarks.unrolled`."""
