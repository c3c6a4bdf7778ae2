"""Arguments of a command that are its own, and not part of the config."""


def own_settings(arguments: list[str], defaults: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The settings of a command, and the other arguments, which are for Hydra.

    Args:
        arguments: of the command line, such as ["experiment=digits", "top=5"].
        defaults: each setting with its default.
    """
    settings, rest = dict(defaults), []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in settings:
            settings[key] = value
        else:
            rest.append(argument)
    return settings, rest
