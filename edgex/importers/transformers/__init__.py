"""transformers' models: which can be imported, the timm architecture that a config.json describes, their tensors.

A family of models, those with one configuration and one set of tensor names, is one file here with `FAMILIES`;
`registry` finds them by the class that config.json names and by their tensors. Reading the other settings of
config.json is `edgex.importers.configuration`.
"""
