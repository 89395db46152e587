"""Instruction meta-learning: tune OPT decoders on thousands of tasks, measure how it generalises."""
