"""Names for runs whose author gave none."""

import random

# fmt: off
_ADJECTIVES = (
    "able", "amber", "ample", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "crisp", "eager",
    "early", "fair", "fine", "firm", "fleet", "fond", "fresh", "gentle", "glad", "golden", "grand", "green",
    "hardy", "honest", "humble", "keen", "kind", "lively", "lucid", "merry", "mild", "neat", "nimble", "noble",
    "open", "patient", "plain", "polite", "prime", "proud", "quick", "quiet", "rapid", "ready", "robust", "sharp",
    "silver", "simple", "smooth", "solid", "spry", "steady", "stout", "sunny", "sure", "swift", "tidy", "true",
    "vivid", "warm", "wise", "witty",
)
_NOUNS = (
    "alder", "ash", "badger", "beech", "birch", "bison", "brook", "canyon", "cedar", "cliff", "cove", "crane",
    "creek", "delta", "dune", "eagle", "elm", "falcon", "fern", "finch", "fjord", "fox", "glade", "grove", "harbor",
    "hare", "hawk", "hazel", "heron", "hill", "ibis", "island", "jay", "lake", "lark", "linden", "lynx", "maple",
    "marsh", "meadow", "mesa", "moor", "moss", "oak", "orchid", "otter", "owl", "peak", "pebble", "pine", "plover",
    "pond", "poplar", "raven", "reef", "ridge", "river", "robin", "rowan", "sparrow", "spruce", "stone", "stork",
    "summit", "swan", "thrush", "tern", "valley", "willow", "wren",
)
# fmt: on


def make_up() -> str:
    """A name that is easy to say: two words and a number."""
    number = random.randint(0, 999)  # noqa: S311 a name to talk about, no secret
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}-{number}"  # noqa: S311
