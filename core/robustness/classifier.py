"""The security feature classifier: a logistic regression on the base model's last prompt token.

Covers: features of every layer, the choice of a layer by cross-validation on one half of the prompts, the score on the
other half, and the direction along which feature drift is measured. Not here: measuring drift (probe_activations).
Source: arXiv 2410.04524 names the classifier. Its kind, layer and data are this project's choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from core.lm.load import BaseModel
from core.lm.prompts import pad
from core.schemas.progress import OnProgress
from core.schemas.robustness import Classifier

Floats = NDArray[np.float64]
_BATCH = 16
_FOLDS = 4


@dataclass(frozen=True)
class SecurityDirection:
    """The direction that separates harmful from benign prompts in the hidden states of one layer.

    `normal` projects a feature (`width`) onto the direction; `harmful` and `benign` are the base model's mean
    projections.
    """

    quality: Classifier
    normal: Tensor
    harmful: float
    benign: float

    def drift(self, features: Tensor) -> float:
        """How far harmful prompts (`prompts width`) have moved to the benign ones: 0 not at all, 1 all the way."""
        projection = float((features.double() @ self.normal).mean())
        return (projection - self.harmful) / (self.benign - self.harmful)


@torch.inference_mode()
def last_token_features(base: BaseModel, prompts: Sequence[Sequence[int]], *, on_progress: OnProgress) -> Floats:
    """Hidden state of the last prompt token after every layer: `prompts layers+1 width`. Layer 0 is the embedding."""
    found: list[Tensor] = []
    for start in range(0, len(prompts), _BATCH):
        on_progress(start, len(prompts))
        rows = prompts[start : start + _BATCH]
        ids, mask = pad(rows, base.pad_id, side="right")  # padding on the left would shift learned positions
        last = torch.tensor([len(row) - 1 for row in rows], device=base.device)
        output = base.model(
            input_ids=ids.to(base.device), attention_mask=mask.to(base.device), output_hidden_states=True
        )
        found.append(
            torch.stack([state[range(len(rows)), last] for state in output.hidden_states], dim=1).float().cpu()
        )
    return torch.cat(found).double().numpy()


def fit_direction(harmful: Floats, benign: Floats, *, seed: int) -> SecurityDirection:
    """Fit on one half of the prompts, where cross-validation chooses the layer, and score on the other half.

    Features are `prompts layers+1 width`. `seed` decides the halves and the folds.
    """
    features = np.concatenate([harmful, benign])
    labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(benign))])
    train, test = train_test_split(np.arange(len(labels)), test_size=0.5, stratify=labels.tolist(), random_state=seed)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    layers = range(1, features.shape[1])
    scores = [
        cross_val_score(_model(), features[train, layer], labels[train], cv=folds, scoring="neg_log_loss").mean()
        for layer in layers
    ]
    layer = layers[int(np.argmax(scores))]
    model = _model().fit(features[train, layer], labels[train])
    predicted = model.predict_proba(features[test, layer])[:, 1]
    normal = model[-1].coef_[0] / model[0].scale_
    return SecurityDirection(
        quality=Classifier(
            layer=layer,
            accuracy=float(((predicted > 0.5) == labels[test]).mean()),
            auroc=float(roc_auc_score(labels[test], predicted)),
            n_train=len(train),
            n_test=len(test),
        ),
        normal=torch.from_numpy(normal),
        harmful=float((harmful[:, layer] @ normal).mean()),
        benign=float((benign[:, layer] @ normal).mean()),
    )


def _model() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
