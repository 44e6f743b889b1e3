"""Mutated inputs for every parser of edgex, and what must become of each.

`mutations` damages bytes, `formats` knows the containers that carry digests and checksums, `parsers` holds what reads
them and what a right answer is, `judge` tries one input, `campaign` many, in a process of its own that `worker` starts
and watches. `python -m fuzzing` is the long run behind `make fuzz`; `crashes` kills commands at random moments.
"""
