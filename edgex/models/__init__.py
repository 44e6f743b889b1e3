"""Vision Transformers that explain themselves.

`self_explaining` holds the network, `head` its class weights, `attention` one block's forward; `evidence` holds one
strategy a file, `backbones` one library a file. Weights are read and written by `edgex.files`.
"""
