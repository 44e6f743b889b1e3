"""Graph passes: each module holds one, a function that changes an ONNX graph in place and returns what it changed.

They do not import one another; `edgex.export.graph_builder` and `edgex.export.int8` choose and order them. What several
need to ask of a graph is in `edgex.export.graph` and `edgex.export.token_products`.
"""
