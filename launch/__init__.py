"""Starts runs on Cloud TPU, on SLURM and in several processes of one machine. Imports nothing but the standard
library and iml.errors."""
