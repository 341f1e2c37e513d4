"""The subcommands of `irjax`, one module each.

A module has SUMMARY and DESCRIPTION for the help, `add_arguments(parser)`, and `run(arguments)`; where a subcommand has
subcommands of its own, `add_arguments` sets their `run`. What a run needs is imported when it runs: these
modules import nothing heavy, so that ``irjax --help`` answers at once.
"""

COMMANDS = ("predict", "evaluate", "compare", "datasets", "labels", "benchmark", "models", "analyse")
