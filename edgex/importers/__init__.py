"""Weights from timm, open_clip and transformers become models of edgex.

`workflow` imports a model from names to the written file, `assembly` from tensors; `base_weights` loads a backbone to start training from. Both read a file (`weights`) or
published weights (`pretrained`), sort its tensors (`state_dicts`) and, for a model, add a head (`class_heads`,
`zero_shot`).
"""
