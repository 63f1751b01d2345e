"""Commands of ``tldet``, one file each with ``SUMMARY``, ``arguments(parser)`` and ``run(args, console)``.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from types import ModuleType

from tldet.cli import (
    browse,
    check,
    compare,
    convert,
    data,
    evaluate,
    export,
    extend,
    fewshot,
    finetune,
    import_checkpoint,
    merge,
    merge_results,
    models,
    predict,
    pretrain,
    quickstart,
    report,
    serve,
    split,
    study,
    test,
    train,
    watch,
)

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "finetune": finetune,
    "extend": extend,
    "fewshot": fewshot,
    "pretrain": pretrain,
    "study": study,
    "watch": watch,
    "test": test,
    "evaluate": evaluate,
    "report": report,
    "compare": compare,
    "predict": predict,
    "merge-results": merge_results,
    "serve": serve,
    "export": export,
    "check": check,
    "split": split,
    "merge": merge,
    "convert": convert,
    "data": data,
    "browse": browse,
    "models": models,
    "import": import_checkpoint,
    "quickstart": quickstart,
}
