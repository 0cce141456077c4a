"""Sequential (active) acquisition: environments, policies, and what they are worth.

Importing this registers the environments, which gymnasium does itself, asked for
``gymnasium.make("kscout.acquisition:kscout/Digits-v0")``.
"""

import gymnasium

SOURCES = {"digits": "kscout/Digits-v0", "brain": "kscout/Brain-v0", "files": "kscout/Files-v0"}
"""Data source to the name of its environment."""

for _source, _name in SOURCES.items():
    if _name not in gymnasium.registry:
        gymnasium.register(
            _name,
            entry_point="kscout.experiment.acquire:make",
            vector_entry_point="kscout.experiment.acquire:make_vector",
            kwargs={"source": _source},
        )
