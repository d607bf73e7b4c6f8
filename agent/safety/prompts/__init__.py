"""Texts of a workflow: find them, read them as people would, and compare them with what the operator bans."""
