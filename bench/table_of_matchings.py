"""The three matchings of the variational autoencoders beside each other: seconds, and what each one finds.

python bench/table_of_matchings.py [--data qm9] [--molecules 512] [--laws 0.5] [--model runs/vae]

Each molecule is handed to a decoder that says it in an order of its own, more or less surely: the logit of the true
label of every atom and pair is SURE ahead of the others, and all get normal noise. "found" is the share of molecules
whose labels are at least as likely in the order that the matching gives as in the decoder's own; "nats" the mean of
minus the log-probability of the labels in that order, per molecule. A canonical order asks nobody, and finds the
decoder's only if the decoder keeps to it: that is what it is trained to. With --model the laws are those of a trained
model at latents from its posterior, the decoder's own order is not known, and "found" is the share of molecules for
which a matching gives the likeliest order of the three.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

import graphgen
from graphgen import GraphBatch
from graphgen.models.matching import MATCHINGS, Laws, missed
from graphgen.molecules import datasets
from graphgen.molecules.complete import PAIR_TYPES, CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.orders import canonical_order

SURE = 4.0


def shuffled(batch: MoleculeBatch, generator: torch.Generator) -> tuple[MoleculeBatch, Tensor]:
    """The molecules in another order of atoms, and which atom stands where."""
    graph = batch.graph
    order = (graph.batch + torch.rand(len(batch.atoms), generator=generator)).argsort()
    place = order.argsort()
    edges = torch.stack((place[graph.col], place[graph.target]))
    renamed = GraphBatch.from_edge_index(edges, len(order), ptr=graph.ptr, edge_attr=graph.edge_attr)
    return batch._replace(graph=renamed, atoms=batch.atoms[order]), order


def said(whole: CompleteGraphs, types: int, noise: float, generator: torch.Generator) -> Laws:
    """Of a decoder that says these molecules, as surely as that."""
    labels = ((whole.atoms, types), (whole.pairs, len(PAIR_TYPES)))
    return Laws(
        *(
            SURE * torch.nn.functional.one_hot(x, c).float() + noise * torch.randn(len(x), c, generator=generator)
            for x, c in labels
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="qm9")
    parser.add_argument("--molecules", type=int, default=512)
    parser.add_argument("--laws", type=float, default=0.5, help="noise of the logits (default 0.5)")
    parser.add_argument("--model", help="folder of a trained mpgvae or graph-vae")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(chosen.seed)
    data = datasets.load(chosen.data).split("valid")
    batch = data.batch(torch.randperm(len(data), generator=generator)[: chosen.molecules])
    whole = CompleteGraphs.of(batch)
    # The decoder's own order is neither that of the file nor the canonical one; for the last row it is the latter.
    other, order = shuffled(batch, generator)
    cases: dict[str, tuple[Laws, Tensor | None]] = {}
    if chosen.model:
        network = graphgen.load(chosen.model).network
        with torch.no_grad():
            mean, log_std = network.posterior(batch)
            z = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
            cases["the model's"] = network.decode(z, whole.ptr), None
    else:
        kept = canonical_order(batch.graph, batch.atoms)
        cases["in any order"] = said(CompleteGraphs.of(other), len(data.vocabulary), chosen.laws, generator), order
        cases["in the canonical order"] = (
            said(whole.reordered(kept), len(data.vocabulary), chosen.laws, generator),
            kept,
        )
    print(f"{len(whole.ptr) - 1} molecules of {data.name}, {torch.get_num_threads()} thread")
    print(f"{'decoder':<24}{'matching':<12}{'ms':>8}{'found':>9}{'nats':>10}")
    for name, (laws, known) in cases.items():
        losses, seconds = {}, {}
        for matching, match in MATCHINGS.items():

            def search(match=match, laws=laws) -> Tensor:
                if match is None:
                    return canonical_order(batch.graph, batch.atoms)
                return match(batch, whole, laws)

            search()
            began = time.perf_counter()
            found = search()
            seconds[matching] = time.perf_counter() - began
            losses[matching] = missed(whole.reordered(found), laws)
        every = list(losses.values()) if known is None else [missed(whole.reordered(known), laws)]
        least = torch.stack(every).amin(0)
        for matching, loss in losses.items():
            share = float((loss <= least + 1e-3).float().mean())
            ms, nats = 1e3 * seconds[matching], float(loss.mean())
            print(f"{name:<24}{matching:<12}{ms:>8.1f}{share:>9.1%}{nats:>10.3f}", flush=True)


if __name__ == "__main__":
    main()
