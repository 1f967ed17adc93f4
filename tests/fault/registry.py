"""The scenarios by name. Each is a function of a World; scenario("group") enters it."""

SCENARIOS = {}


class Scenario:
    def __init__(self, group, function, in_short):
        self.group, self.function, self.in_short = group, function, in_short
        self.name, self.title = function.__name__, (function.__doc__ or "").strip().splitlines()[0]


def scenario(group, in_short=True):
    def enter(function):
        assert function.__name__ not in SCENARIOS, function.__name__
        SCENARIOS[function.__name__] = Scenario(group, function, in_short)
        return function

    return enter


def load():
    import scenarios_broker  # noqa: F401
    import scenarios_clock  # noqa: F401
    import scenarios_disk  # noqa: F401
    import scenarios_peer  # noqa: F401
    import scenarios_process  # noqa: F401

    return SCENARIOS
