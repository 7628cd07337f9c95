"""Prompt suites: one declaration each, where their rows come from, and which rows a split takes."""
