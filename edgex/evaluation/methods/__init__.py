"""Other methods' heatmaps of the same models: what a user would otherwise run, as a comparison for one forward pass.

One file a method; `registry.parse` reads the name that `edgex eval --baselines` takes, and a new file in this folder
with a subclass of `Method` is enough to add a method. Every method gives [gh, gw] scores per picture and class;
`edgex.evaluation.explanations` keeps them on disk, `edgex.evaluation.comparison` measures them.
"""

from edgex.evaluation.methods.method import Cost, Method
from edgex.evaluation.methods.registry import parse

__all__ = ["Cost", "Method", "parse"]
