"""A vocabulary that tests make for themselves, of umT5's kind: padding 0, end 1."""

import io
from pathlib import Path

import sentencepiece

TEXT = [
    "the robot arm picks up the red block",
    "place the blue cup on the table",
    "push the green block to the left",
    "the camera sees the gripper open & close",
    "ünïcode 机器人",
]


def write_vocabulary(path: Path) -> Path:
    """A `spiece.model`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(30 * TEXT), model_writer=model, vocab_size=44,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return path
