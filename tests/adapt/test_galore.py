import copy
import io
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from endolux.adapt import GaLoreAdamW, galore_groups, low_rank_step
from endolux.adapt.shapes import state_scalars
from endolux.errors import CheckError, ModelError, UsageError

# Attention weights of Hiera-L: (rows, columns) to count.
HIERA_L = {
    (432, 144): 2, (864, 144): 1, (864, 288): 5, (1728, 288): 1, (1728, 576): 35, (3456, 1152): 3,
    (144, 144): 2, (288, 288): 6, (576, 576): 36, (1152, 1152): 4, (3456, 576): 1,
}  # fmt: skip


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(12 * 16, 24), nn.GELU(), nn.Linear(24, 8)
    )


def train(model, optimiser, steps, first=0):
    for number in range(first, first + steps):
        generator = torch.Generator().manual_seed(number)
        picture, target = torch.randn(6, 3, 4, 4, generator=generator), torch.randn(6, 8, generator=generator)
        optimiser.zero_grad()
        nn.functional.mse_loss(model(picture), target).backward()
        optimiser.step()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("options", [{}, {"rank": 4, "projection": "none"}, {"rank": 99, "oversized": "adamw"}])
@pytest.mark.parametrize("fused", [False, True])
def test_unprojected_steps_are_those_of_adamw(options, fused):
    ours, theirs = network(), network()
    train(ours, GaLoreAdamW(ours.parameters(), lr=1e-2, weight_decay=0.1, fused=fused, **options), 20)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1), 20)
    assert (weights(ours) - weights(theirs)).abs().max() < 1e-6


def test_full_rank_of_one_matrix_is_adamw():
    ours, theirs = nn.Linear(6, 6), nn.Linear(6, 6)
    theirs.load_state_dict(ours.state_dict())
    pair = [
        (ours, GaLoreAdamW(ours.parameters(), lr=1e-2, rank=6, projection="svd")),
        (theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2)),
    ]
    for number in range(20):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
        for model, optimiser in pair:
            optimiser.zero_grad()
            model(x).square().sum().backward()
            optimiser.step()
    assert (weights(ours) - weights(theirs)).abs().max() < 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
def test_first_step_in_closed_form(side):
    # The first Adam step is the sign of the projected gradient (eps = 0), brought back by the basis.
    weight = nn.Parameter(torch.randn(7, 5))
    before, gradient = weight.detach().clone(), torch.randn(7, 5)
    weight.grad = gradient.clone()
    optimiser = GaLoreAdamW([weight], lr=0.1, eps=0.0, weight_decay=0.5, rank=3, scale=2.0, side=side)
    optimiser.step()
    basis = optimiser.state[weight]["basis"]
    step = (gradient @ basis).sign() @ basis.T if side == "right" else basis @ (basis.T @ gradient).sign()
    assert torch.allclose(weight.detach(), before * (1 - 0.1 * 0.5) - 0.1 * 2.0 * step, atol=1e-6)


@pytest.mark.parametrize("kind", ["svd", "srft", "srft-released", "gaussian", "dct", "random-columns"])
def test_a_step_lies_in_the_span_of_the_basis_and_training_learns(kind):
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), lr=5e-3, weight_decay=0.0, rank=6, projection=kind, update_interval=5)
    before = model[3].weight.detach().clone()
    train(model, optimiser, 1)
    state = optimiser.state[model[3].weight]
    moved = model[3].weight.detach() - before
    assert state["exp_avg"].shape == (6, 192)
    assert state["basis"].shape == (24, 6)
    assert torch.dist(state["basis"] @ (state["basis"].T @ moved), moved) < 1e-5 * moved.norm()
    picture, target = torch.randn(6, 3, 4, 4), torch.randn(6, 8)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(picture), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_kernels_are_matrices_of_output_channels_by_the_rest():
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), rank=4)
    train(model, optimiser, 1)
    state = optimiser.state[model[0].weight]
    assert state["basis"].shape == (12, 4)
    assert state["exp_avg"].shape == (4, 27)
    assert "basis" not in optimiser.state[model[0].bias]
    other = network().to(memory_format=torch.channels_last)
    train(other, GaLoreAdamW(other.parameters(), rank=4), 1)
    assert torch.allclose(weights(other), weights(model), atol=1e-5)


def compiled_against_plain():
    models = [network(), network()]
    for model, compiled in zip(models, (False, True), strict=True):
        groups = galore_groups(model, [r"^0$", r"^3$"], rank=4, update_interval=3, compiled=compiled)
        optimiser = GaLoreAdamW(groups, lr=torch.tensor(1e-2), weight_decay=0.1)
        train(model, optimiser, 8)
        sides = {optimiser.state[model[n].weight]["basis"].shape for n in (0, 3)}
        assert sides == {(12, 4), (24, 4)}
    assert (weights(models[0]) - weights(models[1])).abs().max() < 1e-5


def test_a_compiled_step_is_the_plain_one(monkeypatch):
    # Traced and run without generating code, which takes minutes.
    graphs = []
    monkeypatch.setattr(low_rank_step, "_BACKEND", lambda graph, _: graphs.append(graph) or graph.forward)
    compiled_against_plain()
    # One for each side, whatever the step and the shape.
    assert len(graphs) == 2


@pytest.mark.slow
def test_a_generated_step_is_the_plain_one():
    compiled_against_plain()


def test_what_torch_cannot_compile_is_said(monkeypatch):
    def fail(*_):
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nmore")

    monkeypatch.setattr(low_rank_step, "_compiled", lambda _: fail)
    model = network()
    with pytest.raises(UsageError, match="no working C"):
        train(model, GaLoreAdamW(model.parameters(), rank=4, compiled=True), 1)


def test_half_precision_weights_take_the_plain_step_when_compiled():
    model = network().bfloat16()
    optimiser = GaLoreAdamW(model.parameters(), rank=4, compiled=True)
    before = weights(model)
    model(torch.ones(1, 3, 4, 4).bfloat16()).float().square().sum().backward()
    optimiser.step()
    assert not torch.equal(before, weights(model))


def test_refresh_every_interval_of_the_parameters_own_steps():
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), rank=4, update_interval=3)
    bases = []
    for number in range(7):
        train(model, optimiser, 1, number)
        bases.append(optimiser.state[model[3].weight]["basis"].clone())
    assert [not torch.equal(a, b) for a, b in itertools.pairwise(bases)] == [False, False, True] * 2
    assert int(optimiser.state[model[3].weight]["refreshes"]) == 3


@pytest.mark.parametrize("side", ["left", "right"])
def test_moments_at_a_refresh(side):
    seen = {}
    for policy in ("keep", "project", "reset"):
        weight = nn.Parameter(torch.zeros(9, 6))
        optimiser = GaLoreAdamW([weight], rank=4, update_interval=2, moments=policy, side=side, lr=0.0)
        for number in range(3):
            if number == 2:
                old = {k: v.clone() for k, v in optimiser.state[weight].items()}
            weight.grad = torch.randn(9, 6, generator=torch.Generator().manual_seed(number))
            optimiser.step()
        state = optimiser.state[weight]
        small = weight.grad @ state["basis"] if side == "right" else state["basis"].T @ weight.grad
        turn = old["basis"].T @ state["basis"]
        first, second = old["exp_avg"], old["exp_avg_sq"]
        if policy == "project":
            first = first @ turn if side == "right" else turn.T @ first
            second = second @ turn**2 if side == "right" else (turn**2).T @ second
        elif policy == "reset":
            first, second = first * 0, second * 0
        assert torch.allclose(state["exp_avg"], 0.9 * first + 0.1 * small, atol=1e-6), policy
        assert torch.allclose(state["exp_avg_sq"], 0.999 * second + 0.001 * small**2, atol=1e-7), policy
        assert (state["exp_avg_sq"] >= 0).all()
        assert float(state["age"]) == (1 if policy == "reset" else 3)
        seen[policy] = state["exp_avg"]
    assert not torch.allclose(seen["keep"], seen["project"], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("moments", ["keep", "project", "reset"])
def test_a_resumed_run_continues_byte_for_byte(dtype, moments):
    def build():
        model = network().to(dtype)
        groups = galore_groups(model, [r"^0$", r"^3$"], rank=4, expected=2, update_interval=3, moments=moments)
        return model, GaLoreAdamW(groups, lr=1e-2, seed=11)

    def run(model, optimiser, steps, first):
        for number in range(first, first + steps):
            x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(number)).to(dtype)
            optimiser.zero_grad()
            model(x).float().square().mean().backward()
            optimiser.step()

    model, optimiser = build()
    run(model, optimiser, 4, 0)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, file)
    run(model, optimiser, 5, 4)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, resumed = build()
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimiser"])
    run(again, resumed, 5, 4)
    assert torch.equal(weights(model), weights(again))
    one, two = optimiser.state_dict(), resumed.state_dict()
    assert one["param_groups"] == two["param_groups"]
    for key, values in one["state"].items():
        for name, value in values.items():
            other = two["state"][key][name]
            assert value.dtype == other.dtype, name
            assert torch.equal(value, other), name


@pytest.mark.parametrize("changed", [{"rank": 5}, {"side": "right"}, {"projection": "svd"}])
def test_resuming_with_another_projection_is_refused(changed):
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), rank=4)
    train(model, optimiser, 1)
    other = GaLoreAdamW(network().parameters(), **({"rank": 4} | changed))
    with pytest.raises(ModelError) as caught:
        other.load_state_dict(optimiser.state_dict())
    assert caught.value.error_id == "adapt.state"
    assert str(changed.get("rank", "")) in str(caught.value)
    assert not other.state


def test_a_state_from_before_an_option_was_there_is_read():
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), rank=4)
    train(model, optimiser, 1)
    saved = optimiser.state_dict()
    del saved["param_groups"][0]["compiled"]
    again = GaLoreAdamW(model.parameters(), rank=4)
    again.load_state_dict(saved)
    train(model, again, 1)
    assert again.param_groups[0]["compiled"] is False


def test_resuming_with_other_matrices_is_refused():
    small, large = nn.Linear(8, 8, bias=False), nn.Linear(12, 8, bias=False)
    optimiser = GaLoreAdamW(small.parameters(), rank=4)
    small(torch.ones(1, 8)).sum().backward()
    optimiser.step()
    with pytest.raises(ModelError, match="shape"):
        GaLoreAdamW(large.parameters(), rank=4).load_state_dict(optimiser.state_dict())


def test_resuming_other_groups_or_another_optimiser_is_refused():
    model = network()
    plain = torch.optim.AdamW(model.parameters())
    train(model, plain, 1)
    with pytest.raises(ModelError, match="rank None"):
        GaLoreAdamW(model.parameters(), rank=4).load_state_dict(plain.state_dict())
    with pytest.raises(ModelError, match="groups of"):
        GaLoreAdamW(galore_groups(model, "^3$", rank=4)).load_state_dict(plain.state_dict())


def test_a_half_spectrum_that_is_too_short_leaves_the_matrix_plain():
    weight = nn.Parameter(torch.randn(20, 10))
    weight.grad = torch.randn(20, 10)
    # The left basis mixes the ten columns: four admissible frequencies, eight directions.
    for rank, shape in ((8, (8, 10)), (9, (20, 10))):
        optimiser = GaLoreAdamW([weight], rank=rank, side="left", lr=0.0)
        optimiser.step()
        assert optimiser.state[weight]["exp_avg"].shape == shape


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_steps_change_nothing_and_end_at_a_limit(value):
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), rank=4, update_interval=1, skip_limit=2)
    train(model, optimiser, 1)
    before, state = weights(model), copy.deepcopy(optimiser.state_dict()["state"])

    def spoil():
        gradient = torch.zeros_like(model[3].weight)
        gradient[0, 0] = value
        model[3].weight.grad = gradient
        optimiser.step()

    spoil()
    spoil()
    assert torch.equal(before, weights(model))
    for key, values in optimiser.state_dict()["state"].items():
        assert all(torch.equal(v, state[key][name]) for name, v in values.items())
    assert optimiser.skipped == 2
    train(model, optimiser, 1)  # a good step ends the row
    spoil()
    spoil()
    with pytest.raises(CheckError) as caught:
        spoil()
    assert caught.value.error_id == "adapt.not-finite"
    resumed = GaLoreAdamW(network().parameters(), rank=4, skip_limit=2)
    resumed.load_state_dict(optimiser.state_dict())
    assert resumed.skipped == optimiser.skipped == 5


def test_groups_by_pattern():
    model = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(8, 24), "proj": nn.Linear(8, 8)})})
    model["mlp"] = nn.Linear(8, 8)
    model["mlp"].bias.requires_grad_(False)
    projected, plain = galore_groups(model, ["attn.qkv", "attn.proj"], rank=4, expected=2, lr=0.5, side="reverse")
    assert projected["names"] == ["attn.qkv.weight", "attn.proj.weight"]
    assert plain["names"] == ["attn.qkv.bias", "attn.proj.bias", "mlp.weight"]
    assert (projected["side"], plain["lr"], plain["rank"]) == ("reverse", 0.5, None)
    optimiser = GaLoreAdamW([projected, plain])
    sum(p.sum() for p in model.parameters()).backward()
    optimiser.step()
    assert "basis" in optimiser.state[model["attn"]["qkv"].weight]
    assert "basis" not in optimiser.state[model["mlp"].weight]


def test_a_shared_weight_counts_once():
    model = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    model[1].weight = model[0].weight
    groups = galore_groups(model, "0|1", rank=2, expected=1)
    assert [len(group["params"]) for group in groups] == [1, 2]


@pytest.mark.parametrize(
    ("patterns", "options", "error_id"),
    [
        (["attn"], {"rank": 4}, "adapt.no-match"),
        (["^3$", "attn"], {"rank": 4}, "adapt.no-match"),
        ([], {"rank": 4}, "adapt.no-match"),
        (["("], {"rank": 4}, "adapt.pattern"),
        (["^3$"], {"rank": 4, "expected": 2}, "adapt.count"),
        (["^3$"], {"rank": 25}, "adapt.rank"),
        (["^3$"], {"rank": 4, "projection": "pca"}, "adapt.projection"),
    ],
)
def test_wrong_groups(patterns, options, error_id):
    with pytest.raises(UsageError) as caught:
        galore_groups(network(), patterns, **options)
    assert caught.value.error_id == error_id


def test_frozen_weights_do_not_match():
    model = network()
    model[3].weight.requires_grad_(False)
    with pytest.raises(UsageError, match="frozen"):
        galore_groups(model, "^3$", rank=4)


@pytest.mark.parametrize(
    ("options", "error_id"),
    [
        ({"rank": 13}, "adapt.rank"),
        ({"rank": 0}, "adapt.option"),
        ({"rank": 2.5}, "adapt.option"),
        ({"lr": -1.0}, "adapt.option"),
        ({"lr": float("nan")}, "adapt.option"),
        ({"betas": (1.0, 0.9)}, "adapt.option"),
        ({"update_interval": 0}, "adapt.option"),
        ({"moments": "forget"}, "adapt.option"),
        ({"oversized": "clamp"}, "adapt.option"),
        ({"compiled": "yes"}, "adapt.option"),
        ({"side": "top"}, "adapt.side"),
        ({"projection": "pca"}, "adapt.projection"),
    ],
)
def test_wrong_options(options, error_id):
    with pytest.raises(UsageError) as caught:
        GaLoreAdamW([nn.Parameter(torch.zeros(12, 20))], **options)
    assert caught.value.error_id == error_id
    with pytest.raises(UsageError) as caught:
        GaLoreAdamW([{"params": [nn.Parameter(torch.zeros(12, 20))], **options}])
    assert caught.value.error_id == error_id


def test_an_unknown_group_option_is_refused():
    with pytest.raises(UsageError, match="'gap'"):
        GaLoreAdamW([{"params": [nn.Parameter(torch.zeros(3, 3))], "gap": 3}])


def test_sparse_gradients_are_refused():
    table = nn.Embedding(8, 4, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="sparse"):
        GaLoreAdamW(table.parameters()).step()


def test_closure_schedule_and_seed():
    model = network()
    optimiser = GaLoreAdamW(model.parameters(), rank=4, seed=1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)

    def closure():
        optimiser.zero_grad()
        loss = model(torch.ones(1, 3, 4, 4)).square().sum()
        loss.backward()
        return loss.detach()

    losses = [float(optimiser.step(closure)) for _ in range(10)]
    schedule.step()
    assert losses[-1] < losses[0]
    other = network()
    second = GaLoreAdamW(other.parameters(), rank=4, seed=2)
    other(torch.ones(1, 3, 4, 4)).square().sum().backward()
    second.step()
    assert not torch.equal(optimiser.state[model[3].weight]["basis"], second.state[other[3].weight]["basis"])
    bases = [optimiser.state[model[n].weight]["basis"] for n in (0, 3, 5)]
    assert [tuple(basis.shape) for basis in bases] == [(12, 4), (24, 4), (8, 4)]


def test_state_of_the_attention_of_hiera_large():
    assert sum(HIERA_L.values()) == 96
    assert sum(m * n * c for (m, n), c in HIERA_L.items()) == 68_553_216

    def total(rank, side="auto"):
        return sum(state_scalars(shape, rank, side) * count for shape, count in HIERA_L.items())

    assert total(128) / total(None) == pytest.approx(0.255, rel=0.01)
    assert total(128, "reverse") / total(None) == pytest.approx(0.203, rel=0.01)
    assert total(64) / total(None) == pytest.approx(0.127, rel=0.01)


@pytest.mark.parametrize(("shape", "side"), [((40, 24), "auto"), ((40, 24), "reverse"), ((24, 40), "auto")])
def test_counted_state_is_the_kept_state(shape, side):
    weight = nn.Parameter(torch.randn(shape))
    weight.grad = torch.randn(shape)
    optimiser = GaLoreAdamW([weight], rank=8, side=side)
    optimiser.step()
    kept = sum(v.numel() for v in optimiser.state[weight].values() if v.ndim)
    assert kept == state_scalars(shape, 8, side)


WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from endolux.adapt import GaLoreAdamW
rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(rank)  # the global generators differ on purpose
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 8)))
optimiser = GaLoreAdamW(model.parameters(), lr=1e-2, rank=4, update_interval=2, seed=3)
for _ in range(5):
    optimiser.zero_grad()
    model(torch.randn(4, 16)).square().mean().backward()
    optimiser.step()
tensors = [p.detach() for p in model.parameters()]
tensors += [v for p in model.parameters() for v in optimiser.state[p].values() if v.ndim]
flat = torch.cat([t.flatten() for t in tensors])
both = [torch.empty_like(flat) for _ in range(2)]
dist.all_gather(both, flat)
assert torch.equal(*both)
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_every_rank_of_a_distributed_run_has_the_same_bases(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors.decode()
