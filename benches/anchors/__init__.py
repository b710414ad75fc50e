"""The engines that `bench_engine.py` compares, each with one precision in a process of its own."""
