"""What the columns of shops mean: names in common use, and the layouts of platforms as tables.

Others use `names` and `known.layout_of`.
"""
