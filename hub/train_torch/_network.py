"""The network for a table, and the same network as one of scikit-learn's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import LabelBinarizer
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._table import Table

_WIDEST = 50


class TableNetwork(nn.Module):
    """Numbers as they are and an embedding for each category, then layers of neurons.

    Its input is one float tensor: the numbers, then the place of each category. The place after
    the last one stands for what training has never seen, whose embedding is zero.
    """

    def __init__(
        self,
        numbers: int,
        categories: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.numbers = numbers
        widths = [min(_WIDEST, round(1.6 * count**0.56) + 1) for count in categories]
        self.embeddings = nn.ModuleList(
            nn.Embedding(count + 1, width, padding_idx=count)
            for count, width in zip(categories, widths, strict=True)
        )
        sizes = [numbers + sum(widths), *hidden]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            layers += [nn.Linear(inner, outer), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the outputs of some rows, before any softmax."""
        places = rows[:, self.numbers :].long()
        parts = [embed(places[:, i]) for i, embed in enumerate(self.embeddings)]
        told: torch.Tensor = self.layers(torch.cat([rows[:, : self.numbers], *parts], dim=1))
        return told


class Finished(nn.Module):
    """A user's own network, with what turns a row's numbers into its input and its output back.

    Attributes:
        network: The user's own.
        classes: How many classes it tells apart; 0 if it predicts a number.
    """

    fill: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, network: nn.Module, table: Table, scaling: tuple[Any, ...] | None) -> None:
        super().__init__()
        self.network, self.classes = network, len(table.classes or ())
        for name, value in zip(("fill", "mean", "spread"), scaling or (), strict=False):
            self.register_buffer(name, torch.tensor(np.asarray(value), dtype=torch.float32))
        self.is_raw = scaling is not None
        self.offset, self.scale = table.offset, table.scale

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class, or the number."""
        if self.is_raw:
            rows = (torch.where(rows.isnan(), self.fill, rows) - self.mean) / self.spread
        told: torch.Tensor = self.network(rows)
        if self.classes == 2:
            chance = torch.sigmoid(told[:, :1])
            return torch.cat([1 - chance, chance], dim=1)
        return told.softmax(dim=1) if self.classes else told[:, 0] * self.scale + self.offset


def as_sklearn(network: TableNetwork, table: Table) -> MLPClassifier | MLPRegressor:
    """Return the same network as scikit-learn's, for rows in which each category is a column.

    To look up an embedding and multiply it is to multiply a column of zeros and one 1 by the
    product of both matrices, so that not an embedding is lost. Loading it takes no trust, and no
    PyTorch.
    """
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().cpu().double().numpy().T for layer in linear]
    biases = [layer.bias.detach().cpu().double().numpy() for layer in linear]
    weights[0] = _without_embeddings(network, weights[0])
    if table.classes is None:
        weights[-1], biases[-1] = (
            weights[-1] * table.scale,
            biases[-1] * table.scale + table.offset,
        )
    sizes = tuple(len(bias) for bias in biases[:-1])
    is_binary = table.classes is not None and len(table.classes) == 2
    learned: dict[str, Any] = {
        "coefs_": weights,
        "intercepts_": biases,
        "n_layers_": len(weights) + 1,
        "n_outputs_": len(biases[-1]),
        "n_features_in_": len(weights[0]),
        "n_iter_": 0,
    }
    if table.classes is None:
        model: Any = MLPRegressor(hidden_layer_sizes=sizes)
        learned["out_activation_"] = "identity"
    else:
        model = MLPClassifier(hidden_layer_sizes=sizes)
        learned["out_activation_"] = "logistic" if is_binary else "softmax"
        learned["classes_"] = np.asarray(table.classes)
        learned["_label_binarizer"] = _binarizer(learned["classes_"])
    vars(model).update(learned)
    return model


def _without_embeddings(network: TableNetwork, first: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401
    parts, start = [first[: network.numbers]], network.numbers
    for embedding in network.embeddings.parameters():
        known = embedding.detach().cpu().double().numpy()[:-1]
        stop = start + known.shape[1]
        parts.append(known @ first[start:stop])
        start = stop
    return np.concatenate(parts)


def _binarizer(classes: np.ndarray[Any, Any]) -> LabelBinarizer:
    found = LabelBinarizer()
    kind = "binary" if len(classes) == 2 else "multiclass"
    vars(found).update(classes_=classes, y_type_=kind, sparse_input_=False)
    return found
