"""Similar products: what `similar` answers beyond the nearest to one pair of embeddings.

`search` is the one method behind command, API and Python. A question (`questions`) gives the
products that it covers a score each: a stored product or a pair by its two cosines, a text or a
picture alone against pictures and texts on one scale (`cross`), several examples (`examples`).
Up to some tens of thousands of products all are scored; beyond, the index or the engine proposes
candidates, and `exhaustive` says so. `variety` then chooses from the ranking.
"""
