"""What RecBole's models ask of its configuration and its data set, answered from a training part.

Letters: U users, N items. RecBole counts users from 1, here as there 0 is padding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.interface import DatasetInfo, TrainingEvents

USER, ITEM, LABEL, TIME = "user_id", "item_id", "label", "timestamp"
SEQUENCE, LENGTH, NEGATIVE = "item_id_list", "item_length", "neg_item_id"


class Settings(dict[str, Any]):
    """RecBole's configuration: a missing key is None; keys are attributes, too."""

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") or key not in self:
            raise AttributeError(key)
        return self[key]

    @property
    def final_config_dict(self) -> dict[str, Any]:
        """The whole of it."""
        return self


def settings(options: Mapping[str, Any], device: torch.device) -> Settings:
    """Return a model's options and what RecBole itself would add."""
    given = Settings(
        USER_ID_FIELD=USER, ITEM_ID_FIELD=ITEM, LABEL_FIELD=LABEL, TIME_FIELD=TIME, RATING_FIELD=None,
        NEG_PREFIX="neg_", LIST_SUFFIX="_list", ITEM_LIST_LENGTH_FIELD=LENGTH, device=device, use_gpu=False,
        train_neg_sample_args={"distribution": "uniform", "sample_num": 1}, numerical_features=[],
        loss_decimal_place=4, require_pow=False,
    )  # fmt: skip
    given.update({key: list(value) if isinstance(value, tuple) else value for key, value in options.items()})
    given["MAX_ITEM_LIST_LENGTH"] = options["max_history"]
    given["train_batch_size"] = options["batch_size"]
    return given


class Log:
    """RecBole's data set, as far as its models look at it: the training part."""

    def __init__(self, info: DatasetInfo, events: TrainingEvents, config: Settings, interaction: Any) -> None:
        """Read the training part.

        Args:
            info: users, items and their attributes.
            events: the training part.
            config: what the models ask for.
            interaction: RecBole's class of that name.
        """
        self.config = config
        self.uid_field, self.iid_field, self.time_field = USER, ITEM, TIME
        self.user_num, self.item_num = info.num_users + 1, info.num_items + 1
        self.sizes = {USER: self.user_num, ITEM: self.item_num}
        self.field2seqlen = {SEQUENCE: config["MAX_ITEM_LIST_LENGTH"]}
        self.field2type: dict[str, Any] = {}
        self.inter_num = len(events.user)
        self.inter_feat = interaction(
            {
                USER: torch.from_numpy(events.user + 1),
                ITEM: torch.from_numpy(events.item.astype(np.int64)),
                TIME: torch.from_numpy(events.timestamp.astype(np.float32)),
            }
        )
        keys = np.unique((events.user + 1) * self.item_num + events.item)
        self.pairs = np.divmod(keys, self.item_num)  # users (P,), items (P,), by user, then item
        self.attributes = info.content.attributes
        self.interaction = interaction

    def num(self, field: str) -> int:
        """Return the number of values of a field, padding included."""
        if field in self.attributes:
            return int(self.attributes[field].max(initial=0)) + 1
        return self.sizes[field]

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Return the (U + 1, N + 1) sparse matrix of ones where a user met an item."""
        user, item = self.pairs
        matrix = sp.coo_matrix((np.ones(len(user), np.float32), (user, item)), (self.user_num, self.item_num))
        return matrix if form == "coo" else matrix.tocsr()

    def history_item_matrix(
        self, value_field: str | None = None, max_history_len: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each user's items (U + 1, longest), ones, and their numbers (U + 1,)."""
        return _padded(*self.pairs, self.user_num, max_history_len)

    def history_user_matrix(
        self, value_field: str | None = None, max_history_len: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each item's users (N + 1, most), ones, and their numbers (N + 1,)."""
        user, item = self.pairs
        order = np.argsort(item, kind="stable")
        return _padded(item[order], user[order], self.item_num, max_history_len)

    def get_item_feature(self) -> Any:
        """Return item ids (N + 1,) and their attributes (N + 1,) as RecBole holds them."""
        columns = {name: torch.from_numpy(codes.astype(np.int64)) for name, codes in self.attributes.items()}
        return self.interaction({ITEM: torch.arange(self.item_num), **columns})


def _padded(
    row: NDArray[np.int64], column: NDArray[np.int64], rows: int, most: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return columns by row, the first `most` of each, zeros behind: (rows, longest), their ones, numbers."""
    number = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - (np.cumsum(number) - number)[row]
    if most is not None:
        row, column, place = (values[place < most] for values in (row, column, place))
        number = np.minimum(number, most)
    table = np.zeros((rows, max(int(number.max(initial=0)), 1)), np.int64)
    table[row, place] = column
    return torch.from_numpy(table), torch.from_numpy((table > 0).astype(np.float32)), torch.from_numpy(number)
