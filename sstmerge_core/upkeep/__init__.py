"""What keeps a workspace in order: who needs a run, and the runs that ship with the demo."""
