"""Chat with several models side by side: one base in memory, one low-rank change of it per column.

The pages' side (`columns`, `conversation`, `client`, `answering`) imports no torch; `server` is the model process and
`model` what it holds.
"""
