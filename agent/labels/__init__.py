"""Marks delivered pictures as machine-made, without touching their pixels where that can be."""
