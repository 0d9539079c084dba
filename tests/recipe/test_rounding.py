import pytest

torch = pytest.importorskip("torch")

from recipe.rounding import Rounding, round_to_nf4  # noqa: E402


def test_rounded_weights_have_at_most_sixteen_values_a_block() -> None:
    rounded = round_to_nf4(torch.randn(4, 64, generator=torch.Generator().manual_seed(1)))
    assert all(len(row.unique()) <= 16 for row in rounded)


def test_rounding_keeps_the_largest_of_a_block() -> None:
    weight = torch.zeros(1, 64)
    weight[0, 3] = 0.7
    assert torch.equal(round_to_nf4(weight), weight)


def test_the_exact_weights_come_back_after_the_step() -> None:
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(64, 64)])})
    exact = model["layers"][0].weight.detach().clone()
    rounding = Rounding(model, first_step=2, share=1.0, seed=1)
    rounding.before_step(1)
    assert torch.equal(model["layers"][0].weight, exact)
    rounding.before_step(2)
    assert not torch.equal(model["layers"][0].weight, exact)
    rounding.after_backward()
    assert torch.equal(model["layers"][0].weight, exact)
