"""The benchmark against llama.cpp: `python benchmarks/bench_peers.py --help`."""
