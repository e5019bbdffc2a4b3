"""Self-contained HTML: the evidence card, the evaluation report, thumbnails and their templates.

Others use `html.render`, `card`, `report` and `thumbnails`.
"""
