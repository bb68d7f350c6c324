"""Hinton's distillation loss and its gradient, and AdamW under a linear schedule, as PyTorch computes them.

    losses.py FOLDER      writes losses.safetensors and adamw.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from transformers import get_linear_schedule_with_warmup

folder = Path(sys.argv[1])
torch.manual_seed(11)

student, teacher, labels = 3 * torch.randn(16, 10), 5 * torch.randn(16, 10), torch.randint(0, 10, (16,))
out = {"student": student, "teacher": teacher, "labels": labels}
for temperature in [1, 20]:
    # In f64, so that the reference's own rounding does not hide ours.
    s = student.double().requires_grad_()
    soft = kl_div(log_softmax(s / temperature, -1), softmax(teacher.double() / temperature, -1), reduction="batchmean")
    loss = 0.3 * cross_entropy(s, labels) + 0.7 * temperature**2 * soft
    loss.backward()
    out |= {f"loss.{temperature}": loss.detach(), f"grad.{temperature}": s.grad}
save_file(out, folder / "losses.safetensors")

weight, bias = torch.randn(40, 30), torch.randn(40)
first = {"first.weight": weight.clone(), "first.bias": bias.clone()}
grads = {"grads.weight": torch.randn(50, 40, 30), "grads.bias": torch.randn(50, 40)}
weight.requires_grad_(), bias.requires_grad_()
groups = [{"params": [weight], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-8)
schedule = get_linear_schedule_with_warmup(optimiser, 5, 50)
for step in range(50):
    weight.grad, bias.grad = grads["grads.weight"][step], grads["grads.bias"][step]
    optimiser.step()
    schedule.step()
save_file(first | grads | {"last.weight": weight.detach(), "last.bias": bias.detach()}, folder / "adamw.safetensors")
