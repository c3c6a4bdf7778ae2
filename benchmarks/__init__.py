"""Speed and memory compared with handwritten code: `python -m benchmarks.implicit`, `… benchmarks.unrolled`."""
