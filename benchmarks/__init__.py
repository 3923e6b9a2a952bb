"""Speed, measured beside other programs: `python -m benchmarks [NAME ...]`."""
