"""Trainings of a network with torch: one waits for its inputs, the other one computes."""

import time

import torch

from bedplate.pipeline import train


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 10_000

    def __getitem__(self, at):
        time.sleep(0.002)
        return torch.ones(64), torch.ones(1)


def steps(batches, width):
    model = torch.nn.Sequential(torch.nn.Linear(width, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    for rows, wanted in batches:
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(model(rows), wanted).backward()
        optimiser.step()


@train
def loads(task):
    steps(torch.utils.data.DataLoader(Slow(), batch_size=8), 64)


@train
def computes(task):
    rows = torch.ones(256, 1024), torch.ones(256, 1)
    steps((rows for _ in range(1_000_000)), 1024)
