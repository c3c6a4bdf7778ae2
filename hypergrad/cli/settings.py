"""Arguments of a command: options, settings of its own, and overrides of the config."""

_WITH_VALUE = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--package", "-p", "--cfg", "-c", "--experimental-rerun"),
)
"""Options of Hydra whose value is the next argument."""


def options_and_others(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The options with their values, and the other arguments; both in their order."""
    options, others, follows = [], [], False
    for argument in arguments:
        is_option = follows or (argument.startswith("-") and argument != "-")
        (options if is_option else others).append(argument)
        follows = not follows and argument in _WITH_VALUE
    return options, others


def own_settings(arguments: list[str], defaults: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The settings of a command, and the other arguments, which are for Hydra.

    Args:
        arguments: of the command line, such as ["experiment=digits", "top=5"].
        defaults: each setting with its default.
    """
    settings, rest = dict(defaults), []
    options, others = options_and_others(arguments)
    for argument in others:
        key, _, value = argument.partition("=")
        if key in settings:
            settings[key] = value
        else:
            rest.append(argument)
    return settings, [*options, *rest]


def options_first(arguments: list[str]) -> list[str]:
    """The same arguments, with those that set a value at the end, as Hydra requires."""
    options, others = options_and_others(arguments)
    sets = [argument.startswith("~") or "=" in argument for argument in others]
    pairs = list(zip(others, sets, strict=True))
    groups = [argument for argument, is_set in pairs if not is_set], [argument for argument, is_set in pairs if is_set]
    return [*options, *groups[0], *groups[1]]
