"""The stories. Each is told once, takes a world, and returns what was seen there.

A trap of the table of known failures is a story here; its first line says what goes wrong in stock dramatiq. What is
seen in each world stands in `regressions.rows`.
"""
