"""TRAK by traker: gradients of margins in a random projection."""
# pyright: reportMissingImports=false

import logging
import tempfile

import torch
from torch import Tensor
from trak import TRAKer

from experiments.influence.handed import Handed, serve

DIMENSIONS = 512


def scores(handed: Handed) -> Tensor:
    """Of one network, by a normal projection to 512 dimensions."""
    model, (X, y), dev = handed
    with tempfile.TemporaryDirectory() as folder:
        trak = TRAKer(
            model,
            "image_classification",  # classes of what is one tensor of inputs
            len(y),
            save_dir=folder,
            device="cpu",
            proj_dim=DIMENSIONS,
            use_half_precision=False,
            logging_level=logging.ERROR,
        )
        state = model.state_dict()
        trak.load_checkpoint(state, model_id=0)
        trak.featurize((X, y), num_samples=len(y))  # at once, because the projection is drawn again for each batch
        trak.finalize_features()
        trak.start_scoring_checkpoint("dev", state, model_id=0, num_targets=len(dev[1]))
        trak.score(dev, num_samples=len(dev[1]))
        return torch.tensor(trak.finalize_scores("dev")).T.clone()


if __name__ == "__main__":
    serve({"TRAK": scores})
