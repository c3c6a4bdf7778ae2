"""Trees of containers, from torch.utils._pytree.

The modules that are trained return dicts, tuples and dataclasses of transformers, which register themselves there. When
it goes, take the same names from its successor (torch.utils.pytree), or from the package optree, if what libraries
register is known there too.
"""

import torch.utils._pytree as _pytree

TreeSpec = _pytree.TreeSpec
"""The structure of a tree."""
keystr = _pytree.keystr
"""The place of a leaf in a tree, as text."""
tree_flatten = _pytree.tree_flatten
"""The leaves of a tree, and its structure."""
tree_flatten_with_path = _pytree.tree_flatten_with_path
"""The leaves of a tree with their places, and its structure."""
tree_leaves = _pytree.tree_leaves
"""The leaves of a tree."""
tree_map = _pytree.tree_map
"""A function of each leaf of a tree, or of the leaves in the same places of several."""
tree_map_only = _pytree.tree_map_only
"""A function of each leaf that is of a type."""
tree_map_with_path = _pytree.tree_map_with_path
"""A function of the place and the value of each leaf."""
tree_structure = _pytree.tree_structure
"""The structure of a tree."""
tree_unflatten = _pytree.tree_unflatten
"""The tree of leaves and a structure."""
