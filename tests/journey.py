"""Every command that takes a path, one after the other, in a folder of one's own.

A program for `test_everywhere`, which runs it in one strange surrounding after another:
`python journey.py FOLDER`. It prints the hash of each file that the commands have
written, and ends with 1 at the first command that does not do what it should.
"""

import hashlib
import multiprocessing
import os
import sys
import warnings
from pathlib import Path

from minillm.cli.app import main

# Names with a space, with letters beyond ASCII, and with some beyond code page 1252. A
# system that knows no such letters hands a program their bytes, in this way:
TEXT, DATA, RUN, WORK, WORDS, IDS, NONE = (
    os.fsdecode(name.encode())
    for name in ("Märchen – 1.txt", "les données", "Пробег №1", "練習 問題",
                 "mots é.json", "números.npy", "нет 🦁.json")
)  # fmt: skip
TALE = "Der Löwe saß – „still“ – im Wald; 狮子 слушал 🦁.\nÉtait-ce vrai?\n"
# What is the same everywhere. Others hold times, or names as the system spells them.
ALIKE = {".json", ".npy", ".py", ".toml", ".txt", ".safetensors"}
OTHERS = {"data.json", "progress.json", "best.safetensors", "last.safetensors"}


def call(*command: str, code: int = 0) -> None:
    sys.argv = ["minillm", *command]
    print("$", ascii(command), flush=True)
    try:
        main()
    except SystemExit as end:
        if (end.code or 0) == code:
            return
        print(f"ended with {end.code}, not with {code}", flush=True)
    else:
        if code == 0:
            return
    raise SystemExit(1)


def travel() -> None:
    Path(TEXT).write_text("\n\n\n".join(
        f"{number}. {TALE * (number % 7 + 3)}" for number in range(60)
    ), encoding="utf-8", newline="\n")  # fmt: skip
    small = ["--context-length", "16", "--d-model", "16", "--n-layers", "1",
             "--n-heads", "2", "--batch-size", "2"]  # fmt: skip
    train = ["train", "--out", RUN, "--data", DATA, "--prompt", "Löwe"]

    call("tokenizer", "train", TEXT, "--out", WORDS, "--vocab-size", "300",
         "--special", "<|endoftext|>", "--workers", "2")  # fmt: skip
    call("tokenizer", "encode", WORDS, "--file", TEXT, "--out", IDS,
         "--workers", "2")  # fmt: skip
    call("tokenizer", "decode", WORDS, "--file", IDS)
    call("tokenizer", "encode", WORDS, "Löwe 🦁")
    call("tokenizer", "show", WORDS, "Löwe 🦁", "--merges")
    call("data", "prepare", TEXT, "--out", DATA, "--tokenizer", WORDS)
    call(*train, *small, "--steps", "4", "--warmup-steps", "1")
    call(*train, "--resume", "--force", "--steps", "6")
    call("generate", RUN, "Löwe 🦁", "--seed", "1", "--max-new-tokens", "9")
    call("flops", RUN)
    call("flops", f"{RUN}/config.json", "--json")
    call("exercises", "start", WORK)
    call("exercises", "list", WORK)
    call("exercises", "check", "bpe.merge", WORK)
    call("lecture", "config", "--all")
    # What goes wrong is said in one line, whatever the path.
    call("tokenizer", "show", NONE, "a", code=2)
    call("data", "prepare", TEXT, "--out", DATA, code=2)
    call("generate", "no – where", code=2)

    for path in sorted(Path().rglob("*")):
        if path.suffix in ALIKE and path.name not in OTHERS:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print("wrote", digest[:16], os.fsencode(path))


if __name__ == "__main__":
    # With `-X warn_default_encoding`, no file of ours is opened without its encoding.
    warnings.filterwarnings("error", category=EncodingWarning, module="minillm")
    multiprocessing.set_start_method("spawn")
    os.chdir(sys.argv[1])
    travel()
