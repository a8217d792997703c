"""Whether the units of a run's model can be ablated."""

from __future__ import annotations

from collections.abc import Mapping


def why_not_ablated(record: Mapping[str, str]) -> str | None:
    """Why ablating a module has no loss to measure, as one sentence; None where it has.

    Args:
        record: What the store says of the model that made its rows.
    """
    if "model.architecture" not in record:
        return "The matrix was imported without its model, so no unit can be ablated."
    # transformers takes a second to import, which an imported matrix need not wait for.
    from ulcmod_dist.forward.architectures import FAMILIES

    if FAMILIES[record["model.architecture"]].decoder:
        return None
    return (
        f"{record['model.id']} is an encoder without a head that predicts the next token, so its "
        "prompts have no loss that ablating a module could increase."
    )
