"""Task performance: loss, answers to validation rows, benchmarks and tasks of lm-evaluation-harness."""
