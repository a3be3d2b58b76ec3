"""What the benchmarks of custodians share: a home with many registered instances, processes, and load upon them."""
