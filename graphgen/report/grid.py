"""Molecules side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem import rdCoordGen
from rdkit.Chem.Draw import rdMolDraw2D

_SIZE = (240, 200)


def prepared(mol: Chem.Mol, like: Chem.Mol | None = None) -> Chem.Mol:
    """A copy to be drawn: sanitised where that can be, with 2D coordinates.

    Args:
        like: a prepared molecule of the same bonds in the same order, whose places it takes.
    """
    with rdBase.BlockLogs():
        mol = Chem.Mol(mol)
        valid = Chem.SanitizeMol(mol, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        if like is None:
            rdCoordGen.AddCoords(mol)
        else:
            mol.AddConformer(like.GetConformer(), assignId=True)
        return rdMolDraw2D.PrepareMolForDrawing(mol, kekulize=valid, addChiralHs=False)


def grid_svg(mols: Sequence[Chem.Mol], legends: Sequence[str], columns: int) -> str:
    """A standalone SVG of prepared molecules, row by row, each with a legend."""
    rows = -(-len(mols) // columns)
    pen = rdMolDraw2D.MolDraw2DSVG(_SIZE[0] * columns, _SIZE[1] * rows, *_SIZE)
    options: Any = pen.drawOptions()
    options.prepareMolsBeforeDrawing = False
    options.fixedBondLength = 32
    options.legendFontSize = 15
    options.padding = 0.08
    pen.DrawMolecules(list(mols), legends=list(legends))
    pen.FinishDrawing()
    return pen.GetDrawingText()
