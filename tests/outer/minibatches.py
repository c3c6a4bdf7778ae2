"""A problem whose batches are drawn by the step, with a constrained and a free hyperparameter."""

import torch

import hypergrad as hg


class Minibatches(hg.InnerProblem):
    """g = mean (x w − y)² + Σ l2 w² + shift · w on 5 of 20 examples, f = mean (x w − y)² on 4 of 12."""

    X_train: torch.Tensor
    y_train: torch.Tensor
    X_dev: torch.Tensor
    y_dev: torch.Tensor

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for part, size in {"train": 20, "dev": 12}.items():
            X = torch.randn(size, 4)
            self.register_buffer(f"X_{part}", X)
            self.register_buffer(f"y_{part}", X.sum(1) + torch.randn(size))

    def init_params(self):
        return {"a": torch.zeros(3).to(self.X_train), "b": torch.zeros(1).to(self.X_train)}

    def hyperparameters(self):
        return {"l2": hg.Hyperparameter(0.1, shape=(4,), constraint=hg.positive), "shift": hg.Hyperparameter(0.2)}

    def inner_batch(self, step):
        return torch.randperm(20, generator=torch.Generator().manual_seed(step))[:5]

    def outer_batch(self, step):
        return torch.randperm(12, generator=torch.Generator().manual_seed(step))[:4]

    def inner_loss(self, params, hparams, batch):
        w = torch.cat([params["a"], params["b"]])
        fit = (self.X_train[batch] @ w - self.y_train[batch]).square().mean()
        return fit + (hparams["l2"] * w.square()).sum() + hparams["shift"] * w.sum()

    def outer_loss(self, params, hparams, batch):
        w = torch.cat([params["a"], params["b"]])
        return (self.X_dev[batch] @ w - self.y_dev[batch]).square().mean()

    def metrics(self, params, hparams):
        return {"size": params["a"].norm()}
