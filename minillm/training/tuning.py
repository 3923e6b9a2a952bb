r"""Fine-tune a model of yours on chats.

**The question.** [`minillm.posttraining`][] tunes models of the lab on problems of the
lab. You have a model that others have trained, and a file of conversations. How do you
get from the two to a model that answers as in the file?

**By one command.** The model is a run of the course, a Llama folder or a GGUF file; the
file has a JSON object in each line.

```console
minillm tune models/SmolLM2-135M-Instruct.Q4_1.gguf chats.jsonl --out runs/tuned
minillm chat runs/tuned
```

It is the loop of `minillm train` ([`minillm.runs.run`][]): Ctrl-C saves and ends,
`--resume` goes on to the same bits, a full disk leaves the checkpoint before, and what
cannot work is refused before the first step.

# What is in the file

The forms are those of the ecosystem (trl, and most published data sets). In a chat,
every answer of the assistant is learned, and nothing else
([`encode_answers`][minillm.inference.chat.encode_answers]):

```json
{"messages": [{"role": "user", "content": "2 + 2?"},
              {"role": "assistant", "content": "4."}]}
```

In a *preference*, the first answer shall gain on the second
([`minillm.training.preferences`][]). A string instead of a list is plain text, written
without the form of a chat.

```json
{"prompt": [{"role": "user", "content": "2 + 2?"}],
 "chosen": [{"role": "assistant", "content": "4."}],
 "rejected": [{"role": "assistant", "content": "That depends."}]}
```

So the file decides the loss: cross-entropy on the answers (SFT) for chats, DPO for
preferences.

# All weights, or a thin layer

By default a LoRA (*low-rank adaptation*) of rank 8 stands beside every matrix of the
blocks, and nothing else is trained ([`minillm.training.lora`][]). What is kept is an
*adapter* in the form of the
package `peft` ([`minillm.files.adapters`][]), a few megabytes that need the model
beside them. `--rank 0` lets all weights learn, and keeps a whole model. To make one of
the two:

```python
from minillm.hub import open_model, save_llama
model, tokenizer, template = open_model("runs/tuned")   # merged already
save_llama(model, "models/mine", tokenizer, chat_template=template)
```

Fine-tuning takes smaller steps than training from nothing does, since the weights are
good already; a thin layer bears larger ones. Unless you say otherwise, the highest
learning rate is

>>> for preferences in (False, True):
...     print([usual(preferences, rank)["max_lr"] for rank in (0, 8)])
[2e-05, 0.0002]
[1e-06, 2e-05]

# What to watch

Some chats are held out, a tenth of them unless you say otherwise, and chosen so that no
prompt is on both sides. The loss on their answers says when to stop: it falls, and
later rises, while that on the others goes on falling. What is kept is the model at the
lowest point.

For preferences the loss starts at $\ln 2 = 0.69$; if it does not, model and reference
differ. Both answers may become less likely; read what it writes.

A model forgets what it is not shown ([`minillm.posttraining`][]). Few steps, a thin
layer, and some chats of the old kind among the new ones keep more.

# What a hundred steps do

SmolLM2-135M cannot sort six digits. After a hundred steps on 900 chats that a program
wrote (`python -m benchmarks.tuned`, ten minutes a seed):

--8<-- "images/data/tuned.md"

**Before this:** [`minillm.training.imitation`][], [`minillm.training.lora`][].
"""

from dataclasses import dataclass
from typing import Any

from minillm.training.settings import TrainConfig

__all__ = ["MATRICES", "TUNE_TABLES", "TuneConfig", "usual"]

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3")
"""What a thin layer can stand beside."""

# No matrix in use is as wide, so no rank as high can be meant.
MOST_RANK = 1 << 16


@dataclass(frozen=True)
class TuneConfig:
    r"""What fine-tuning has to be told beyond training.

    Args:
        rank: $r$, the rank of the thin layer beside each matrix; 0 lets all weights
            learn.
        alpha: $\alpha$, by which the thin product is multiplied, over the rank; by
            default twice the rank.
        where: which matrices have a thin layer: `all`, or names with commas, such as
            `q_proj,v_proj`.
        beta: $\beta$, how dear it is to move away from the model at the start; for
            preferences only.
        validation: which share of the prompts is held out.

    Raises:
        ValueError: if a number is out of its range, or a name unknown.

    Examples:
        >>> TuneConfig(rank=4).alpha
        8.0
        >>> TuneConfig(where="q_proj,v_proj").matrices
        ('q_proj', 'v_proj')
        >>> TuneConfig(rank=-1)
        Traceback (most recent call last):
        ValueError: rank must be from 0 to 65536; got -1
    """

    rank: int = 8
    alpha: float = None  # type: ignore[assignment]  # None until __post_init__
    where: str = "all"
    beta: float = 0.1
    validation: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= MOST_RANK:
            raise ValueError(
                f"rank must be from 0 to {MOST_RANK}; got {self.rank!r:.40}"
            )
        if self.alpha is None:
            object.__setattr__(self, "alpha", 2.0 * self.rank)
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not 0 < value < float("inf") and (name, self.rank) != ("alpha", 0):
                raise ValueError(f"{name} must be positive and finite; got {value}")
        if not 0 < self.validation < 1:
            raise ValueError(
                f"validation must lie between 0 and 1; got {self.validation}: "
                "something has to be held out, or nothing says when to stop"
            )
        for name in self.matrices:
            if name not in MATRICES:
                raise ValueError(
                    f"where names {name!r:.40}: choose all, or of {', '.join(MATRICES)}"
                )

    @property
    def matrices(self) -> tuple[str, ...]:
        """The names of the matrices that have a thin layer."""
        if self.where == "all":
            return MATRICES
        return tuple(name.strip() for name in self.where.split(","))


TUNE_TABLES: dict[str, type] = {"train": TrainConfig, "tune": TuneConfig}
"""The settings of a fine-tuning, as a file or a command line says them."""


def usual(preferences: bool, rank: int) -> dict[str, Any]:
    """Give the settings of training of which tuning wants other values.

    Args:
        preferences: whether preferences are learned.
        rank: the rank of the thin layers, 0 for all weights.

    Returns:
        The settings by name.

    Examples:
        >>> TrainConfig(**usual(preferences=False, rank=8)).steps
        200
    """
    max_lr = {
        (False, False): 2e-5,
        (False, True): 2e-4,
        (True, False): 1e-6,
        (True, True): 2e-5,
    }[preferences, rank > 0]
    return {
        "steps": 200,
        "batch_size": 8,
        "max_lr": max_lr,
        "weight_decay": 0.0,
        "eval_every": 50,
        "eval_tokens": 10_000,
    }
