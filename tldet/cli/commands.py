"""Commands of ``tldet``, one file each with ``SUMMARY``, ``arguments(parser)`` and ``run(args, console)``.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from types import ModuleType

from tldet.cli import (
    compare,
    convert,
    evaluate,
    export,
    extend,
    fewshot,
    finetune,
    import_checkpoint,
    merge,
    models,
    predict,
    pretrain,
    quickstart,
    report,
    study,
    test,
    train,
)

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "finetune": finetune,
    "extend": extend,
    "fewshot": fewshot,
    "pretrain": pretrain,
    "study": study,
    "test": test,
    "evaluate": evaluate,
    "report": report,
    "compare": compare,
    "predict": predict,
    "export": export,
    "merge": merge,
    "convert": convert,
    "models": models,
    "import": import_checkpoint,
    "quickstart": quickstart,
}
