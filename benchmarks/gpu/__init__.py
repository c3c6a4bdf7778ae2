"""What everything costs on one GPU, as ratios to bare PyTorch: `python -m benchmarks.gpu`."""
