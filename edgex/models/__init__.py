"""Vision Transformers that explain themselves.

`self_explaining` holds the network, `head` its class weights, `attention` one block's forward; `evidence` one strategy a
file, `backbones` one library a file. Weights and files are `edgex.files`'.
"""
