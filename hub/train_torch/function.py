"""A neural network for a table, trained by PyTorch on one worker or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import rayml

from ._model import Model, loss_of, make_network
from ._report import draw, score, warn
from ._table import prepare
from ._train import Settings, Training

if TYPE_CHECKING:
    import pandas as pd


def train_torch(  # noqa: PLR0913, PLR0917 - what can be asked of a training, by name
    context: rayml.Context,
    table: pd.DataFrame,
    target: str,
    test: pd.DataFrame | None = None,
    task: Literal["auto", "classification", "regression"] = "auto",
    module: str | None = None,
    hidden: list[int] | None = None,
    dropout: float = 0.1,
    epochs: int = 50,
    batch_size: int = 256,
    learning_rate: float = 0.001,
    weight_decay: float = 0.01,
    schedule: Literal["cosine", "plateau", "constant"] = "cosine",
    patience: int = 10,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    checkpoint_every: int = 5,
    test_size: float = 0.2,
    valid_size: float = 0.1,
    seed: int = 0,
    register_as: str | None = None,
) -> dict[str, object] | None:
    """Train a network on a table with PyTorch, on one worker or, with the torch engine, several.

    Numbers, times, text and missing values are taken as they are: a category is an embedding.
    Training stops when the loss on rows kept for that gets no better, ends with the best weights,
    and a later attempt of the run goes on from the last checkpoint. Logs the losses and the
    learning rate of each epoch (`train/loss`, `valid/loss`, `train/learning_rate`), the plot
    `curves`, the table `warnings`, which names columns that look like the target in disguise, and
    the artifact `model`, of which the metrics are those on the test rows. Returns the model's URI,
    that of the registered version, and the metrics.

    The built-in network is logged as the same network of scikit-learn's in a pipeline, which
    takes the table's own columns and loads without trust and PyTorch; `evaluate` logs its scores.
    A network of your own is logged as PyTorch's program, which takes trust: of a table of numbers
    it takes the columns as they are, of any other what the model `preprocessing` makes of them.

    Args:
        context: What the run logs to.
        table: The rows to learn from.
        target: The column that is to be told.
        test: The rows to judge the model on; without them, `test_size` of the table.
        task: What the target is; `auto` takes text, booleans and up to 20 whole numbers for
            classes.
        module: A network of your own: `file.py:make_model`, a function that takes the number of
            inputs and that of outputs and returns a torch.nn.Module. It is given a float tensor,
            and gives one number for a number or two classes, else one for each class.
        hidden: Neurons in each layer of the built-in network; [256, 128] by default.
        dropout: Share of the neurons that each step leaves out.
        epochs: How often the network sees all rows, at most.
        batch_size: Rows in each step, over all workers.
        learning_rate: Of AdamW, at the beginning.
        weight_decay: Of AdamW.
        schedule: How the learning rate goes down: along a cosine, by 0.3 where the loss gets no
            better, or not.
        patience: Epochs without a better loss after which training stops.
        precision: What to compute in; `auto` is bfloat16, or float16, on GPUs that have it.
        checkpoint_every: Epochs between checkpoints.
        test_size: Share of the rows that the model is judged on.
        valid_size: Share of the others that tell when to stop.
        seed: Of the weights, the order of rows and the splits.
        register_as: Register the model by this name.

    Raises:
        SpecError: The table lacks the target, or there is nothing to learn; or `module` is no
            such function.
    """
    settings = Settings(
        epochs, batch_size, learning_rate, weight_decay, schedule, patience, precision,
        checkpoint_every, seed,
    )  # fmt: skip
    settings.check(context.world_size)
    is_own = module is not None
    data = prepare(table, target, task, test, test_size, valid_size, seed, is_own=is_own)
    network = make_network(data.table, module, hidden or [256, 128], dropout, seed)
    training = Training(context, network, loss_of(data.table), settings)
    training.run(*data.rows())
    if context.rank:  # the first worker tells of all
        return None
    context.log_plot("curves", draw(training.course, training.best_epoch))
    model = Model(network, data.table)
    logged = model.log(context, data.test)
    context.log_metrics({"epochs": training.epoch, "best_epoch": training.best_epoch})
    if is_own:
        found = score(data.test[target], model.told(data.test), data.table.classes)
        context.log_metrics(found)
    else:
        found = rayml.hub.get("evaluate")(model=logged, table=data.test, target=target, seed=seed)
    warn(context, [*data.warnings(seed), *found.pop("warnings", [])])
    if register_as is not None:
        context.flush()
        found["version"] = rayml.register_model(logged, register_as).uri
    return {"model": logged.uri, "best_epoch": training.best_epoch, **found}
