"""The statistic `attribution`: activation times the gradient of the prompt's own loss.

The row of a prompt holds, for each unit, the mean of ``|a_t * dL/da_t|`` over the counted tokens t.
``a_t`` is the unit and ``L`` the loss of the prompt in nats, the sum over its predicted tokens: the
counted ones but the first of the prompt, each predicted from all tokens before it. To first order
it is how much L changes when the unit is zeroed at a token. A sum, since the mean would shrink the
rows of long prompts; and since prompts of a batch share no term, the gradient of the batch's loss
is for each of them that of its own.
"""

import os
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.hooks import HookPoint, Routing, check_called_once, hooked


def choose_deterministic() -> None:
    """Let this process use kernels that add in a fixed order; gradients of attention need it."""
    # cuBLAS reads it before its first product; torch refuses to be deterministic without.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def pool_attribution(
    model: PreTrainedModel,
    points: Sequence[HookPoint],
    prompts: Sequence[TokenizedPrompt],
    inputs: Sequence[torch.Tensor],
    add: Callable[[HookPoint, torch.Tensor, Routing | None], None],
    ranks: int = 1,
) -> None:
    """Run a batch forwards and backwards, and give ``add`` activation times gradient of each point.

    ``model`` has its head; ``inputs`` are the token ids and the attention mask of ``prompts``. A
    layer's product is pooled as soon as its gradient is there, and no gradient is kept.

    Raises:
        UlcmodError: A hooked module was not called exactly once, or no gradient reaches it.
    """
    reached = dict.fromkeys(points, 0)

    def watch(point: HookPoint, units: torch.Tensor, routing: Routing | None) -> torch.Tensor:
        # Weights have no gradients, so the first layer's units are where the graph begins.
        used = units.view_as(units) if units.requires_grad else units.detach().requires_grad_()
        # Not `used`, which would refer to itself through its hook and outlive the batch.
        values = units.detach()

        def pool(gradient: torch.Tensor) -> None:
            reached[point] += 1
            add(point, values.float() * gradient.float(), routing)

        used.register_hook(pool)  # type: ignore[no-untyped-call]
        return used

    with torch.enable_grad(), hooked(model, points, watch, ranks) as call_count:
        logits = model(input_ids=inputs[0], attention_mask=inputs[1]).logits
    check_called_once(call_count)
    logits.backward(_differentiate_loss(logits.detach(), prompts))
    check_called_once(reached, "backward")


def _differentiate_loss(logits: torch.Tensor, prompts: Sequence[TokenizedPrompt]) -> torch.Tensor:
    """Gradient of the loss with respect to the logits: softmax, less 1 at the token that follows.

    Written out, since autograd would keep several copies of the logits in float32.
    """
    gradient = torch.zeros_like(logits)
    for row, prompt in enumerate(prompts):
        position = torch.tensor(prompt.token_mask[1:], device=logits.device).nonzero().squeeze(1)
        target = torch.tensor(prompt.ids, device=logits.device)[position + 1]
        residual = logits[row, position].float().softmax(dim=-1)
        residual[torch.arange(len(target), device=logits.device), target] -= 1
        gradient[row, position] = residual.to(logits.dtype)
    return gradient
