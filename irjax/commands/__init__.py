"""The subcommands of `irjax`, one module each.

A module has SUMMARY and DESCRIPTION for the help, `add_arguments(parser)`, and `run(arguments)`; if a subcommand has
its own subcommands, `add_arguments` sets their `run`. The modules import nothing heavy at the top, only when they run,
so that ``irjax --help`` answers at once.
"""

COMMANDS = ("train", "predict", "evaluate", "compare", "datasets", "labels", "benchmark", "models", "analyse")
