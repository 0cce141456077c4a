import random
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from commands import TINY, write_config
from kscout.data import DATA
from kscout.errors import UserError
from kscout.experiment import config as configuration
from kscout.experiment.config import SEARCHES, load_experiment, options_of, parse_options, set_paths
from kscout.recon import RECONSTRUCTORS
from kscout.sampling import SAMPLERS

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
ENTRIES = {**DATA, **SAMPLERS, **SEARCHES, **RECONSTRUCTORS}


def message(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_experiment(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 900
    return text


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    experiment = load_experiment(path)
    for name in experiment.compare:
        assert experiment.compared(name).name == name
    tree = experiment.model_dump(mode="json")
    assert configuration.Experiment.model_validate(yaml.safe_load(yaml.safe_dump(tree))) == (
        experiment
    )


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_entry_has_a_model_of_its_keyword_options(kind):
    model = options_of(ENTRIES[kind], kind)
    needed = {name: "x.npy" for name, field in model.model_fields.items() if field.is_required()}
    made = model.model_validate(needed)
    assert made.kind == kind
    assert set(made.options()) == set(model.model_fields) - {"kind"}
    with pytest.raises(UserError, match="unknown key nonsense: valid here are"):
        parse_options(ENTRIES, kind, ["nonsense=1", *(f"{name}=x.npy" for name in needed)])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tempo=1", ["unknown key tempo", "name, seed, data"]),
        ("data.n_trian=1", ["unknown key data.n_trian", "n_train"]),
        ("training.closed_form.foo=1", ["training.closed_form.foo", "n_slices"]),
        ("data.kind=foo", ["data.kind is 'foo'", "'digits', 'brain', 'files'"]),
        ("sampler.kind=foo", ["sampler.kind is 'foo'", "'caipirinha'"]),
        ("compare.a.kind=foo", ["compare.a.kind is 'foo'", "'caipirinha'"]),
        ("data.n_train=1.5", ["data.n_train is 1.5", "integer"]),
        ("data.n_train=0", ["data.n_train is 0", "greater than or equal to 1"]),
        ("seed=-1", ["seed is -1", "greater than or equal to 0"]),
        (f"seed=0x{'f' * 9000}", ["seed is a huge number"]),
        ("training.epochs=ten", ["training.epochs is 'ten'", "integer"]),
        ("training.learning_rate=.nan", ["training.learning_rate is nan", "finite"]),
        ("sampler.noise=.inf", ["sampler.noise is inf", "finite"]),
        ("sampler.noise=-0.1", ["sampler.noise is -0.1", "greater than or equal to 0"]),
        ("training.loss=l2", ["training.loss is 'l2'", "'nmse_kspace' or 'nmse_image'"]),
        ("budget.acs=disc", ["budget.acs is 'disc'", "'none', 'square' or 'lines'"]),
        ("budget.n_samples=10", ["exactly one of acceleration, n_samples and n_lines"]),
        ("budget.acceleration=null", ["none given"]),
        ("reconstructor.kernel_size=4", ["reconstructor.kernel_size is 4", "odd"]),
        ("name=../up", ["name is '../up'", "letters, digits"]),
        (f"name={'x' * 300}", ["name is 'xxx", "at most 80 characters"]),
        ("compare.a/b.kind=caipirinha", ["compare.a/b is 'a/b'", "letters, digits"]),
        ("compare.tiny.kind=caipirinha", ["compare: 'tiny' is the experiment's own name"]),
        ("compare.a={kind: tile, tile: [2, x]}", ["compare.a.tile[entry 2] is 'x'", "integer"]),
        ("compare=null", ["compare is null: valid is a section", ", or no such key"]),
        ("data=5", ["data is 5", "section"]),
        ("budget=null", ["budget is null: valid is a section of keys with values"]),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_what_is_valid(config, override, said):
    text = message(config, override)
    for part in (str(config), *said):
        assert part in text


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", "name.x=1", "seed={", "seed=[" * 999])
def test_overrides_that_are_none(config, override):
    assert override[:40] in message(config, override)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no configuration"),
        (b"- name: a", "holds no configuration"),
        (b"name: \xe9", "not a text file"),
        (b"name: [", "not valid YAML"),
        (b"a: 1\nb: [1, 2\nc: {", "not valid YAML: expected ',' or ']', but got ':' (line 3, col"),
        (b"a: \x00", "not valid YAML"),
        (b"seed: 2020-99-99", "not valid YAML"),
        (b"seed: " + b"9" * 5000, "not valid YAML"),
        (b"[" * 5000, "nested too deeply"),
        (b"[1]: 2", "not valid YAML"),
        (b"1: 2", "is missing"),
        (b"seed: 1\nname: a\nseed: 2", "key 'seed' stands twice"),
        (b"data: {kind: digits, kind: brain}", "key 'kind' stands twice"),
        (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"seed: &a {x: *a}", "is missing"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, said):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    text = message(path)
    assert said in text
    assert str(path) in text


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "none.yaml") in message(tmp_path / "none.yaml")
    assert str(tmp_path) in message(tmp_path)


def test_values_that_expand_without_end_are_refused_at_once(tmp_path):
    levels = "\n".join(f"k{i}: &k{i} [{','.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 30))
    path = tmp_path / "bomb.yaml"
    path.write_text(f"k0: &k0 [x]\n{levels}\nname: *k29")
    assert str(path) in message(path)


def test_another_kind_drops_the_options_of_the_first_wherever_it_stands(config):
    given = ("sampler.tile=[2, 2]", "sampler.kind=tile")
    for overrides in (given, given[::-1]):
        sampler = load_experiment(config, overrides).sampler
        assert (sampler.kind, sampler.tile, sampler.init) == ("tile", (2, 2), "flat")
    same = load_experiment(config, ["sampler.kind=global"]).sampler
    assert same.init == "density"


def test_overrides_make_the_sections_that_are_missing():
    tree = {}
    set_paths(tree, ["a.b.c=[1, 2]", "a.d=e=f"])
    assert tree == {"a": {"b": {"c": [1, 2]}, "d": "e=f"}}


def test_a_damaged_configuration_is_read_or_refused(tmp_path):
    path = write_config(tmp_path / "a.yaml", compare={"b": {"kind": "tile", "tile": [2, 3]}})
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(bad))
            bad[start : start + rng.randint(0, 3)] = rng.choice(
                [rng.randbytes(2), b":", b"[", b"{", b"- ", b"&a ", b"*a", b"\n", b"null", b"1e999"]
            )
        path.write_bytes(bad)
        with suppress(UserError):
            load_experiment(path)


def test_the_tiny_experiment_is_what_it_says(config):
    experiment = load_experiment(config)
    assert experiment.name == TINY["name"]
    assert experiment.training.batch_size == 16
    assert experiment.training.closed_form.regularisation > 0
