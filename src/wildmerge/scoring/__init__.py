"""Scoring models on benchmarks through lm-evaluation-harness, one durable result file a benchmark."""
