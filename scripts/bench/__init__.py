"""Parts of ``bench_ops.py``: cases, contenders, timing, peak memory and the report."""
