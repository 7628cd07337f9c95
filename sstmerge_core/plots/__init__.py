"""Pictures: pure functions dataframe → plotly Figure, with one fixed style per method."""
