import json

import pytest

from unlearnable.budgets import L2, Linf
from unlearnable.errors import InputError
from unlearnable.training.recipes import Recipe, named, recipes


@pytest.mark.parametrize("name", list(recipes))
def test_every_recipe_describes_itself(name: str) -> None:
    recipe = named(name, epochs=3)
    assert recipe.epochs == 3
    spec = recipe.spec()
    assert json.loads(json.dumps(spec)) == spec
    assert spec["epochs"] == 3


def test_descriptions_differ_where_recipes_do() -> None:
    made = [named(name) for name in recipes]
    made += [named("adversarial", budget=budget) for budget in (Linf.of_255(4), L2(0.03))]
    made += [named("adversarial", steps=3), named("smoothing", sigma=0.5), Recipe(crop=2)]
    assert len({json.dumps(recipe.spec()) for recipe in made}) == len(made)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "expected epochs of 1 or more, found 0"),
        ({"batch_size": 1}, "expected batch_size of 2 or more"),
        ({"learning_rate": float("nan")}, "expected a learning rate of 0 or more, found nan"),
        ({"label_smoothing": 1.0}, "expected a label smoothing"),
        ({"ema": 1.0}, "expected an averaging share"),
        ({"momentum": 1.0}, "expected a momentum from 0 to below 1"),
        ({"weight_decay": -1e-4}, "expected a weight decay of 0 or more"),
        ({"clip_norm": 0}, "expected a gradient's length above 0"),
        ({"epochs": "x"}, "expected a whole number for epochs, found 'x'"),
        ({"epochs": 1.5}, "expected a whole number for epochs, found 1.5"),
        ({"flip": 1}, "expected true or false for flip, found 1"),
        ({"schedule": "cosin"}, "expected one of one-cycle, cosine, step, constant for schedule, found 'cosin'"),
        ({"objective": "mse"}, "expected an Objective for objective"),
    ],
)
def test_values_out_of_range_are_errors(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named("erm", **wrong)


def test_an_unknown_recipe_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="found 'adverserial': did you mean 'adversarial'"):
        named("adverserial")
    with pytest.raises(InputError, match="expected a whole number for steps, found 'many'"):
        named("adversarial", steps="many")
    with pytest.raises(InputError, match="sigma above 0"):
        named("smoothing", sigma=0)
