"""Outputs: fetch what the finished nodes produced, check it, keep it."""
