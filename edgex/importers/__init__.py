"""Weights from timm, open_clip and transformers become models of edgex.

`workflow` goes from names to a written file, `assembly` from weights to a model, `base_weights` to a backbone that
training starts from. They read a file (`weights`) or published weights (`pretrained`), sort its tensors
(`state_dicts`, `transformers`) and, for a model, add a head (`class_heads`, `zero_shot`). Architecture, classes and
preprocessing are read from the files beside the weights (`configuration`) and decided in `settings`.
"""
