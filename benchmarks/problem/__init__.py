"""The problems that the benchmarks are run on; their data are pure functions of a seed, nothing is downloaded."""
