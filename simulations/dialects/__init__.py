"""The same patients in other hospitals' forms, so that a mapping can be held against MIMIC-IV's own.

Each writer reads a MIMIC-IV folder (real, or from ``simulations.synthetic``) and loses nothing that the pipeline reads.
"""
