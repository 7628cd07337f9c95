"""From what a person chose to recipes that can run: every problem at once, before any work."""
