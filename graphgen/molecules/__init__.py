"""Molecules as graph tensors and back.

Nothing is imported here, so that :mod:`~graphgen.molecules.vocabulary`, :mod:`~graphgen.molecules.records`
and :mod:`~graphgen.molecules.encoded` work on a machine without RDKit.
"""
