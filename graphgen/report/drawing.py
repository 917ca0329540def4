"""Molecules as inline SVG whose colours follow the page."""

from __future__ import annotations

import re
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem import rdCoordGen
from rdkit.Chem.Draw import rdMolDraw2D

_SIZE = (200, 150)
# RDKit can only write fixed colours. Each element gets one that names it, and the page's style is asked
# instead: light and dark need different ones.
_MARK = re.compile(r"#([0-9A-F]{2})01FE")
_PALETTE = {number: (number / 255, 1 / 255, 254 / 255) for number in range(1, 119)}
_PALETTE[-1] = (0.0, 1 / 255, 254 / 255)


def molecule_svg(smiles: str, valid: bool) -> str | None:
    """An SVG without background, or None if nothing can be drawn.

    What is not valid is drawn as it came, nothing rewritten. Atoms of element Z take the colour
    ``--atom-Z`` of the page, or the colour of its text.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, sanitize=valid)
        if mol is None or not mol.GetNumAtoms():
            return None
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        # Keeps bridged rings legible, which RDKit's own layout folds onto themselves.
        rdCoordGen.AddCoords(mol)
        mol = rdMolDraw2D.PrepareMolForDrawing(mol, kekulize=valid)
        pen = rdMolDraw2D.MolDraw2DSVG(*_SIZE)
        options: Any = pen.drawOptions()
        options.clearBackground = False
        options.prepareMolsBeforeDrawing = False
        options.fixedBondLength = 40
        options.bondLineWidth = 2
        options.padding = 0.08
        options.setAtomPalette(_PALETTE)
        pen.DrawMolecule(mol)
        pen.FinishDrawing()
        text = pen.GetDrawingText()
    body = re.search(r"<!-- END OF HEADER -->(.*)</svg>", text, re.DOTALL)
    if body is None:
        return None
    shapes = _MARK.sub(lambda mark: f"var(--atom-{int(mark[1], 16)},currentColor)", body[1])
    return f'<svg viewBox="0 0 {_SIZE[0]} {_SIZE[1]}" aria-hidden="true">{shapes.strip()}</svg>'
